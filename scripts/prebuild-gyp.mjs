#!/usr/bin/env node
// What prebuildify calls in place of node-gyp: builds the addon for the platform that it names in its environment, with
// CMake and Zig, where node-gyp would have put it: build/Release below the current folder.
import path from 'node:path';
import { build } from './cmake.mjs';
import { targets } from './targets.mjs';
import { zigEnvironment, zigOptions } from './zig.mjs';

const { PREBUILD_PLATFORM: platform, PREBUILD_ARCH: arch, PREBUILD_LIBC: libc } = process.env;
const target = targets.find((t) => t.platform === platform && t.arch === arch && (t.libc ?? libc) === libc);
if (target === undefined)
  throw new Error(`Expected a platform of scripts/prebuilds.json, got ${platform}-${arch}, ${libc}.`);

const folder = path.resolve('build');
const output = path.join(folder, 'Release');
const places = [
  `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${output}`,
  `-DCMAKE_RUNTIME_OUTPUT_DIRECTORY=${output}`, // Windows' shared libraries are run-time things to CMake
];
await build(folder, [...zigOptions(target.zig), ...places], ['hqq'], zigEnvironment());
