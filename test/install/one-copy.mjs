// What a program gets that imports the package and has a dependency that requires it. Prints one JSON document.
import * as hqq from 'hqq';
import * as js from 'hqq/js';
import * as runtime from 'hqq/runtime';
import required from './one-copy.cjs';

/** Exports that are not the same in both. */
const differing = (imported, other) =>
  [...new Set([...Object.keys(imported), ...Object.keys(other)])].filter(
    (name) => !['default', 'module.exports', '__esModule'].includes(name) && imported[name] !== other[name],
  );

async function main() {
  const weight = { data: new Float32Array(64 * 64).fill(0.1), shape: [64, 64] };
  const one = await hqq.QuantizedLinear.fromWeight(weight);
  const other = new required.hqq.QuantizedLinear(required.hqq.quantizeSync(weight));
  const products = await hqq.QuantizedLinear.forwardMany([one, other], new Float32Array(64));
  const error = await required.hqq.openModel('no such model').catch((reason) => reason);

  console.log(
    JSON.stringify({
      backend: hqq.backend(),
      names: [hqq, js, runtime].map((entry) => Object.keys(entry).sort()),
      differing: [
        differing(hqq, required.hqq),
        differing(js, required.js),
        differing(runtime, required.runtime),
      ].flat(),
      instances: [
        one instanceof required.hqq.QuantizedLinear,
        other instanceof hqq.QuantizedLinear,
        error instanceof hqq.HqqError,
      ],
      products: products.map(({ length }) => length),
    }),
  );
}

main();
