import * as fs from 'node:fs/promises';
import { inTurns } from '../../files/event-loop.js';
import type { Container } from '../container.js';
import type { OnnxEnvelope } from './envelope.js';
import { isOnnxFolder, openFolder } from './folder.js';
import { createModel, DATA_SUFFIX, layoutSteps, type OnnxLayout } from './layout.js';
import { beginsModel } from './scan.js';
import { openFile } from './source.js';

/** Files of onnxruntime, and of what is built on it. */
export const onnx: Container = {
  name: 'onnx',
  title: 'an ONNX file',
  ending: '.onnx',

  begins: beginsModel,
  isPart: (name) => name.endsWith('.onnx'),
  beside: DATA_SUFFIX,
  folder: 'onnx',
  opensFolder: isOnnxFolder,
  open: async (path, output) => ((await fs.stat(path)).isDirectory() ? openFolder(path) : openFile(path, output)),
  staysWide: () => true, // a graph says which types its tensors have
  layout: (name, specs, envelope) => inTurns(layoutSteps(name, specs, (envelope as OnnxEnvelope).draftOf(name))),
  create: (path, layout, mode) => createModel(path, layout as OnnxLayout, mode),
};
