import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Checkpoint } from '../../lib/containers/safetensors/checkpoint.js';
import { expectError, folderOf, freshPath, smallFile } from './helpers.js';

const INDEX = 'model.safetensors.index.json';
const index = (weight_map: unknown) => JSON.stringify({ metadata: { total_size: 8 }, weight_map });

describe('links in the folder of a checkpoint', () => {
  it('carries over links only to what the model or its Hugging Face cache holds', async () => {
    const entry = folderOf({
      'blobs/1': '{}',
      'blobs/2': smallFile('a'),
      'refs/main': 'abc',
      'snapshots/abc/sub/x.txt': '',
      'snapshots/abd/secret': '',
    });
    const folder = join(entry, 'snapshots', 'abc');
    const secret = freshPath('secret');
    fs.writeFileSync(secret, '{}');
    const links = {
      'model.safetensors': '../../blobs/2',
      'tokenizer.json': '../../blobs/1',
      'sub/nested.json': '../../../blobs/1',
      'inside.txt': 'sub/x.txt',
      'config.json': '../../blobs/1',
      'outside.txt': secret,
      'other.txt': '../abd/secret',
      'refs.txt': '../../refs/main',
      'passwd.txt': '/etc/passwd',
      'again.txt': 'outside.txt',
    };
    for (const [name, target] of Object.entries(links)) fs.symlinkSync(target, join(folder, name));
    const current = freshPath('current');
    fs.symlinkSync(folder, current);
    for (const path of [folder, current]) {
      const checkpoint = await Checkpoint.open(path);
      expect(checkpoint.envelope.otherFiles).toEqual(['inside.txt', 'sub/nested.json', 'sub/x.txt', 'tokenizer.json']);
      expect(checkpoint.envelope.skippedFiles).toEqual([
        'again.txt',
        'other.txt',
        'outside.txt',
        'passwd.txt',
        'refs.txt',
      ]);
      expect(checkpoint.envelope.config).toEqual({});
      expect([...checkpoint.entries.keys()]).toEqual(['a']);
      await checkpoint.close();
    }
  });

  describe('one that leads elsewhere', () => {
    const files = { [INDEX]: index({ a: 's1.safetensors' }), 's1.safetensors': smallFile('a'), 'config.json': '{}' };
    const folderWithLink = (name: string) => {
      const folder = folderOf(files);
      fs.rmSync(join(folder, name));
      fs.symlinkSync(join(folderOf(files), name), join(folder, name));
      return folder;
    };

    it.each(['config.json', INDEX])('is not followed from %s', async (name) => {
      const pattern = new RegExp(
        `Expected ${name.replaceAll('.', '\\.')} to be a file of .*, got a link to elsewhere\\. Put the file itself`,
      );
      await expectError(() => Checkpoint.open(folderWithLink(name)), 'ERR_CHECKPOINT_CONTENT', pattern);
    });

    it('is followed from weights', async () => {
      const checkpoint = await Checkpoint.open(folderWithLink('s1.safetensors'));
      expect([...checkpoint.entries.keys()]).toEqual(['a']);
      await checkpoint.close();
    });
  });
});
