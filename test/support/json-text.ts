import { formatStart } from '../../lib/runtime/text/json/json-text.js';
import { advance, isEnd } from '../../lib/runtime/text/json/states.js';

const JSON_START = formatStart('json');

/** Where a text leads that must be JSON, or begin it, from `start`; undefined: nowhere. */
export const leads = (text: string, start = JSON_START) => advance(start, text);

/** Whether a text may end there. */
export const whole = (text: string, start = JSON_START) => isEnd(leads(text, start) ?? []);

/** Where arrays begin whose items are one of some schemas. */
export const items = (...anyOf: object[]) => formatStart({ schema: { type: 'array', items: { anyOf } } });
