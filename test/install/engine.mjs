// Run by Deno and Bun: what hqq/js computes there.
import * as hqq from 'hqq/js';
import { digests, floats } from './digests.mjs';

console.log(JSON.stringify({ backend: hqq.backend(), digests: await digests(hqq), floats: [...(await floats(hqq))] }));
