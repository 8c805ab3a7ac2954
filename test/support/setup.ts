import './equality.js';
import { afterAll } from 'vitest';
import { removeScratchFolders } from './scratch.js';

// Before and after each test file, of which several may have one process.

afterAll(removeScratchFolders);
