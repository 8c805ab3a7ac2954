import * as fs from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { openSource } from '../../lib/containers/list.js';
import { findModel, hubCache } from '../../lib/files/hub-cache.js';
import { expectError, folderOf, freshPath, smallFile } from './helpers.js';

const REVISION = '0123456789abcdef0123456789abcdef01234567';

/** A cache with one model, as huggingface_hub lays it out. */
function cacheOf(name = 'models--org--name'): { readonly cache: string; readonly entry: string } {
  const cache = folderOf({ [`${name}/blobs/1`]: smallFile('a'), [`${name}/refs/main`]: REVISION }, 'hub');
  const entry = join(cache, name);
  fs.mkdirSync(join(entry, 'snapshots', REVISION), { recursive: true });
  fs.symlinkSync('../../blobs/1', join(entry, 'snapshots', REVISION, 'model.safetensors'));
  return { cache, entry };
}

const VARIABLES = ['HF_HOME', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'XDG_CACHE_HOME'] as const;
const before = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]]));
const cwd = process.cwd();
function setCache(variables: Readonly<Record<string, string>>): void {
  for (const name of VARIABLES) delete process.env[name];
  Object.assign(process.env, variables);
}
afterEach(() =>
  setCache(Object.fromEntries(Object.entries(before).filter(([, value]) => value !== undefined)) as never),
);

describe("the cache's place", () => {
  it.each([
    [{}, join(homedir(), '.cache', 'huggingface', 'hub')],
    [{ XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
    [{ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }, '/h/hub'],
    [{ HF_HOME: '~/h' }, join(homedir(), 'h', 'hub')],
    [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
    [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '/new' }, '/new'],
    [{ HF_HOME: '/h', HF_HUB_CACHE: '' }, '/h/hub'],
  ])('is what huggingface_hub takes: %j', (env, want) => {
    expect(hubCache(env)).toBe(want);
  });
});

describe('an id', () => {
  it('is the snapshot of refs/main in the cache', async () => {
    const { cache, entry } = cacheOf();
    setCache({ HF_HUB_CACHE: cache });
    const snapshot = join(entry, 'snapshots', REVISION);
    expect(await findModel('org/name')).toBe(snapshot);
    const home = freshPath('home');
    fs.mkdirSync(home);
    fs.renameSync(cache, join(home, 'hub'));
    setCache({ HF_HOME: home });
    const checkpoint = await openSource('org/name');
    expect([...checkpoint.entries.keys()]).toEqual(['a']);
    expect(checkpoint.path).toBe(join(home, 'hub', 'models--org--name', 'snapshots', REVISION));
    await checkpoint.close();
  });

  it('is a path where that exists', async () => {
    const { cache } = cacheOf();
    setCache({ HF_HUB_CACHE: cache });
    process.chdir(folderOf({ 'org/name/x': '' }));
    try {
      expect(await findModel('org/name')).toBe('org/name');
    } finally {
      process.chdir(cwd);
    }
  });

  it('that is not there is told how to get it', async () => {
    const { cache } = cacheOf();
    setCache({ HF_HUB_CACHE: cache });
    await expectError(
      () => findModel('org/other'),
      'ERR_IO',
      /Cannot read org\/other\. There is no such path, and no such model in the Hugging Face cache \(.*hub\)\. Models are not downloaded here: check the path, or run hf download org\/other\./,
    );
  });

  it.each(['name', './org/name', '/org/name', 'a/b/c', 'org/..', '../name', 'org/na--me', '-x/name', 'org/name '])(
    'is not what only looks like one: %j',
    async (path) => {
      setCache({ HF_HUB_CACHE: cacheOf().cache });
      expect(await findModel(path)).toBe(path);
      await expectError(() => openSource(path), 'ERR_IO', /does not exist|is a file, not a folder/);
    },
  );
});

describe('an entry of the cache', () => {
  it('given as a path is its snapshot, also through a link', async () => {
    const { entry } = cacheOf();
    const snapshot = join('snapshots', REVISION);
    expect(await findModel(entry)).toBe(join(entry, snapshot));
    const link = freshPath('llama');
    fs.symlinkSync(entry, link);
    expect(await findModel(link)).toBe(join(link, snapshot));
    const checkpoint = await openSource(link);
    expect(checkpoint.files).toHaveLength(1);
    await checkpoint.close();
    for (const path of [join(entry, snapshot), join(entry, snapshot, 'model.safetensors')])
      expect(await findModel(path)).toBe(path);
  });

  it('may end its ref with a line', async () => {
    const { entry } = cacheOf();
    fs.writeFileSync(join(entry, 'refs', 'main'), `${REVISION}\n`);
    expect(basename(await findModel(entry))).toBe(REVISION);
  });

  it.each([
    ['../../secret', /refs\/main names no revision/],
    ['..', /names no revision/],
    ['', /names no revision/],
    ['a\0b', /names no revision/],
    ['fedcba', /names fedcba, which is not among its snapshots\. .*pass a folder of .*snapshots: "0123456789/],
    ['elsewhere', /names elsewhere, which leads elsewhere/],
    ['x'.repeat(5000), /at most 1024 are read/],
  ])('never leads out of itself: refs/main is %j', async (text, pattern) => {
    const { entry } = cacheOf();
    fs.symlinkSync(folderOf({ 'model.safetensors': smallFile('a') }), join(entry, 'snapshots', 'elsewhere'));
    fs.writeFileSync(join(entry, 'refs', 'main'), text);
    const code = text.length > 1000 ? 'ERR_CHECKPOINT_FORMAT' : 'ERR_IO';
    await expectError(() => findModel(entry), code, pattern);
  });

  it('without a main revision names those that there are', async () => {
    const { cache, entry } = cacheOf();
    fs.rmSync(join(entry, 'refs', 'main'));
    setCache({ HF_HUB_CACHE: cache });
    for (const path of [entry, 'org/name'])
      await expectError(
        () => findModel(path),
        'ERR_IO',
        /refs\/main is missing\. Download the model again \(hf download\), or pass a folder of /,
      );
    fs.rmSync(join(entry, 'snapshots'), { recursive: true });
    await expectError(() => findModel('org/name'), 'ERR_IO', /refs\/main is missing\. Download .* \(hf download\)\./);
  });
});
