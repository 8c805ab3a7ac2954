import { loadLanguageModel, openBlockSource } from 'hqq/runtime';
import blocks from './blocks.cjs';

await blocks({ loadLanguageModel, openBlockSource });
