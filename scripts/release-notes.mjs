#!/usr/bin/env node
// What CHANGELOG.md says of a version: node scripts/release-notes.mjs 0.1.0
import { readFileSync } from 'node:fs';

const [version = ''] = process.argv.slice(2);
const sections = readFileSync(new URL('../CHANGELOG.md', import.meta.url), 'utf8')
  .split(/^## /m)
  .slice(1);
const section = sections.find((text) => text.split(/\s/, 1)[0] === version);
if (section === undefined)
  throw new Error(`Expected a section of CHANGELOG.md for version ${JSON.stringify(version)}, got none.`);
console.log(section.slice(section.indexOf('\n')).trim());
