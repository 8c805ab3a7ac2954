import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { bytesOf } from '../compute/floats.js';
import type { ChosenCodes } from '../containers/grid.js';
import { standing, syncFolder, withPath } from '../files/io.js';
import { allocating } from '../messages/allocating.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { checkOurs, clear, removeEmpty } from './folder.js';
import { lockFolder } from './lock.js';
import {
  type BlockRecord,
  fits,
  type LayerOutcome,
  laidOut,
  type ModelRecord,
  type Planned,
  type Saved,
  VERSION,
} from './records.js';
import { checkSum, damaged, readArrays, readIndex, writeArrays } from './state-files.js';
import { Stream } from './stream.js';
import type { TuningTexts } from './texts.js';

// How far a model is tuned, as files in a folder: what is done stays done, whatever ends the process. One of them, which is replaced whole,
// says which of the others count.

const INDEX = 'state.json';
const TEXTS = 'texts.bin';
const MODEL = 'model.bin';
const FLOAT = Float32Array.BYTES_PER_ELEMENT;
const ID = Uint32Array.BYTES_PER_ELEMENT;

/** Which of the two streams. */
export type StreamName = 'floats' | 'codes';

/** A run, on disk. */
export class TuneState {
  readonly folder: string;
  #saved: Saved;

  #closed = false;
  readonly #unlock: () => Promise<void>;

  private constructor(folder: string, saved: Saved, unlock: () => Promise<void>) {
    this.folder = folder;
    this.#saved = saved;
    this.#unlock = unlock;
  }

  /**
   * The state of a run, or of one that begins; whoever asks closes it. Nobody else has it meanwhile.
   *
   * @param what All that decides its bytes.
   * @param planned What has to be in it.
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for that of another run; `ERR_CHECKPOINT_FORMAT`; `ERR_IO`, also where another run has it
   */
  static async open(
    folder: string,
    what: unknown,
    restart: boolean,
    planned: Planned,
    signal?: AbortSignal,
  ): Promise<TuneState> {
    const key = createHash('sha256').update(JSON.stringify(what)).digest('hex');
    const isKnown = (await standing(join(folder, INDEX))) !== undefined && !restart;
    if (!isKnown) await checkOurs(folder);
    await withPath('Cannot create', folder, () => fs.mkdir(folder, { recursive: true }));
    const unlock = await lockFolder(folder);
    try {
      const state = await TuneState.#openLocked(folder, key, restart, unlock);
      await state.#check(planned, signal);
      return state;
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  static async #openLocked(
    folder: string,
    key: string,
    restart: boolean,
    unlock: () => Promise<void>,
  ): Promise<TuneState> {
    const index = join(folder, INDEX);
    const known = restart ? undefined : await readIndex(index);
    if (known?.key === key) return new TuneState(folder, known, unlock);
    if (known !== undefined) {
      const message = `Expected ${plain(folder)} to be the state of this run, got that of another model or other options`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. restart (--tune-restart) removes it and begins anew.`);
    }
    await clear(folder); // what was begun and never got as far as an index, or is to go
    const state = new TuneState(
      folder,
      { version: VERSION, key, lengths: [], trained: 0, blocks: [], sums: {} },
      unlock,
    );
    await state.#commit();
    return state;
  }

  /** Blocks that are done. */
  get blocks(): readonly BlockRecord[] {
    return this.#saved.blocks;
  }

  /** What became of all layers together; undefined until `keepModel`. */
  get model(): ModelRecord | undefined {
    return this.#saved.model;
  }

  /** What is tuned with; undefined until `keepTexts`. */
  async texts(): Promise<TuningTexts | undefined> {
    const { lengths, trained } = this.#saved;
    if (lengths.length === 0) return undefined;
    const ids = new Uint32Array(lengths.reduce((sum, length) => sum + length, 0));
    await this.#read(TEXTS, 0, [bytesOf(ids)]);
    let end = 0;
    return { trained, texts: lengths.map((length) => ids.slice(end, (end += length))) };
  }

  async keepTexts({ texts, trained }: TuningTexts): Promise<void> {
    await this.#write(TEXTS, texts.map(bytesOf));
    this.#saved = { ...this.#saved, lengths: texts.map(({ length }) => length), trained };
    await this.#commit();
  }

  /** The stream that goes into block `index`, to be written, then read; who asks closes it. */
  async createStream(name: StreamName, index: number, width: number): Promise<Stream> {
    const path = this.#streamPath(name, index);
    await withPath('Cannot remove', path, () => fs.rm(path, { force: true })); // of a run that ended in between
    return Stream.create(path, width);
  }

  /** The same of one that is done. */
  async openStream(name: StreamName, index: number, width: number): Promise<Stream> {
    const path = this.#streamPath(name, index);
    const rows = this.#saved.lengths.reduce((sum, length) => sum + length, 0);
    const size = (await standing(path))?.size ?? 0;
    if (size !== rows * width * FLOAT) throw damaged(path, `${size} bytes, not ${rows * width * FLOAT}`);
    return Stream.open(path, width);
  }

  /** The next block is done, and the streams that come out of it are on the disk: those that went in are not needed any more. */
  async keepBlock(
    layers: readonly LayerOutcome[],
    { before, after }: Pick<BlockRecord, 'before' | 'after'>,
  ): Promise<void> {
    const index = this.blocks.length;
    const { records, arrays } = laidOut(layers);
    await this.#write(blockFile(index), arrays);
    this.#saved = {
      ...this.#saved,
      blocks: [...this.blocks, { before, after: numberOr(after, before), layers: records }],
    };
    await this.#commit();
    for (const name of ['floats', 'codes'] as const)
      await fs.rm(this.#streamPath(name, index), { force: true }).catch(() => {}); // the folder goes at the end
  }

  /** Scales and zeros that take the place of those of the blocks, by weight; empty: these stay. */
  async keepModel(
    layers: ReadonlyMap<string, Pick<ChosenCodes, 'scale' | 'zero'>>,
    { steps, before, after }: Omit<ModelRecord, 'layers'>,
  ): Promise<void> {
    let at = 0;
    const records = [...layers].map(([weight, { scale, zero }]) => {
      const record = { weight, at, groups: scale.length };
      at += scale.byteLength + zero.byteLength;
      return record;
    });
    await this.#write(
      MODEL,
      [...layers.values()].flatMap(({ scale, zero }) => [bytesOf(scale), bytesOf(zero)]),
    );
    this.#saved = { ...this.#saved, model: { steps, before, after: numberOr(after, before), layers: records } };
    await this.#commit();
  }

  /** Forgets what became of all layers together in other than so many steps: it is found anew, from the blocks. */
  async keepModelOf(steps: number): Promise<void> {
    if (this.model === undefined || this.model.steps === steps) return;
    const { [MODEL]: _, ...sums } = this.#saved.sums;
    this.#saved = { ...this.#saved, model: undefined, sums };
    await this.#commit();
    await fs.rm(join(this.folder, MODEL), { force: true }).catch(() => {}); // written anew, or left alone
  }

  /** What the errors of inputs count, by name of the weight. */
  async importance(): Promise<ReadonlyMap<string, Float32Array>> {
    const found = new Map<string, Float32Array>();
    for (const [block, { layers }] of this.blocks.entries()) {
      for (const { weight, at, importance } of layers) {
        if (importance === 0) continue;
        const values = new Float32Array(importance);
        await this.#read(blockFile(block), at, [bytesOf(values)]);
        found.set(weight, values);
      }
    }
    return found;
  }

  /** What was chosen for a weight; undefined: what the solver finds. @param forModel the solver's too, as the whole model is tuned on them */
  async chosen(weight: string, forModel = false): Promise<ChosenCodes | undefined> {
    const moved = this.model?.layers.find((layer) => layer.weight === weight);
    for (const [block, { layers }] of this.blocks.entries()) {
      const record = layers.find((layer) => layer.weight === weight);
      if (record === undefined || record.codes === 0) continue;
      if (record.solver && !forModel && moved === undefined) return undefined;
      const { codes, groups, at, importance } = record;
      const chosen = allocating('the codes of a layer', () => ({
        scale: new Float32Array(groups),
        zero: new Float32Array(groups),
        codes: new Uint8Array(codes),
      }));
      const { scale, zero } = chosen;
      await this.#read(blockFile(block), at + importance * FLOAT, [bytesOf(scale), bytesOf(zero), chosen.codes]);
      if (moved) await this.#read(MODEL, moved.at, [bytesOf(scale), bytesOf(zero)]);
      return chosen;
    }
    return undefined;
  }

  /** Lets others have it. What is done stays; where nothing is, nothing stays. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const isBegun = this.#saved.lengths.length > 0;
    if (!isBegun) await clear(this.folder);
    await this.#unlock();
    if (!isBegun) await removeEmpty(this.folder);
  }

  /** Removes all of it, and closes it. */
  async remove(): Promise<void> {
    this.#saved = { ...this.#saved, lengths: [] };
    await this.close();
  }

  #streamPath(name: StreamName, index: number): string {
    return join(this.folder, `${name}-${index}.bin`);
  }

  async #read(name: string, at: number, arrays: readonly Uint8Array[]): Promise<void> {
    await readArrays(join(this.folder, name), at, arrays);
  }

  /** Writes a file anew, and remembers what it is known by: with the next index. */
  async #write(name: string, arrays: readonly Uint8Array[]): Promise<void> {
    const sum = await writeArrays(join(this.folder, name), arrays);
    this.#saved = { ...this.#saved, sums: { ...this.#saved.sums, [name]: sum } };
  }

  /** All that an index names, and that nothing else is read of it. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
  async #check(planned: Planned, signal: AbortSignal | undefined): Promise<void> {
    const { lengths, blocks, model, sums } = this.#saved;
    const index = join(this.folder, INDEX);
    if (!fits(this.#saved, planned)) throw damaged(index, 'that of other layers');
    const ends = new Map<string, number>();
    const need = (name: string, end: number) => ends.set(name, Math.max(end, ends.get(name) ?? 0));
    if (lengths.length > 0) need(TEXTS, lengths.reduce((sum, length) => sum + length, 0) * ID);
    for (const [i, { layers }] of blocks.entries()) {
      need(blockFile(i), 0);
      for (const { at, importance, groups, codes } of layers)
        need(blockFile(i), at + (importance + 2 * groups) * FLOAT + codes);
    }
    if (model !== undefined) need(MODEL, 0);
    for (const { at, groups } of model?.layers ?? []) need(MODEL, at + 2 * groups * FLOAT);
    for (const [name, end] of ends) {
      const sum = sums[name];
      if (sum === undefined || sum.bytes < end) throw damaged(index, `less of ${name} than it names`);
      await checkSum(join(this.folder, name), sum, signal);
    }
  }

  async #commit(): Promise<void> {
    await writeArrays(join(this.folder, PARTIAL), [Buffer.from(`${JSON.stringify(this.#saved)}\n`)]);
    const path = join(this.folder, INDEX);
    await withPath('Cannot put in place', path, () => fs.rename(join(this.folder, PARTIAL), path));
    await syncFolder(this.folder);
  }
}

const PARTIAL = 'state.partial';

/** An error of steps that led nowhere is none that JSON holds: what was before was better, and is the error. */
const numberOr = (after: number, before: number): number => (Number.isFinite(after) ? after : before);

const blockFile = (index: number) => `block-${index}.bin`;
