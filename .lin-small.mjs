import { QuantizedLinear, quantizeSync, backend } from './dist/index.mjs';
for (const activations of ['int8','float32']) {
const data = Float32Array.from({length: 384*384}, (_, i) => Math.sin(i*i)*0.05);
const layer = new QuantizedLinear(quantizeSync({data, dtype:'float32', shape:[384,384]}), { activations });
const x = Float32Array.from({length:384}, (_, i) => Math.cos(i*i)); const out=new Float32Array(384);
for (let i=0;i<20000;i++) layer.forwardSync(x,{out});
let t=[]; for(let r=0;r<200;r++){ const s=performance.now(); for(let i=0;i<100;i++) layer.forwardSync(x); t.push((performance.now()-s)*10);} t.sort((a,b)=>a-b);
let u=[]; for(let r=0;r<200;r++){ const s=performance.now(); for(let i=0;i<100;i++) layer.forwardSync(x,{out}); u.push((performance.now()-s)*10);} u.sort((a,b)=>a-b);
console.log(layer.kernel, 'us new', t[50].toFixed(2), 'out', u[50].toFixed(2), layer.memoryUsage);
}
