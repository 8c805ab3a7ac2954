import * as hqq from 'hqq';
import * as js from 'hqq/js';
import * as runtime from 'hqq/runtime';
import use from './use.cjs';

await use({ hqq, js, runtime });
