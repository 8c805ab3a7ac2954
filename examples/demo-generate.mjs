// The last part of the demo: the same prompt from float32, 4-bit and 3-bit weights.
import { loadLanguageModel } from 'hqq/runtime';

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

/** Writes one text from each model and says how fast, and from how many bytes. `models`: a label and a folder each. */
export async function demoGenerate(models, prompt = 'And the Lord said', maxTokens = 32) {
  console.log(`\nThe same prompt, the likeliest token each time:`);
  for (const [label, folder] of models) {
    const model = await loadLanguageModel(folder);
    try {
      for await (const _ of model.generate(prompt, { maxTokens: 4 })); // tables and caches are there from now on
      let text = '';
      let tokens = 0;
      let first = 0;
      for await (const token of model.generate(prompt, { maxTokens })) {
        if (tokens++ === 0) first = performance.now();
        text += token.text;
      }
      const rate = (tokens - 1) / ((performance.now() - first) / 1000);
      const { linears } = model.memoryUsage;
      console.log(
        `\n  ${label.padEnd(8)} ${megabytes(linears).padStart(8)} of linear weights, ${rate.toFixed(0)} tokens/s`,
      );
      console.log(`  ${prompt}${text.replaceAll('\n', '\n  ')}`);
    } finally {
      await model.close();
    }
  }
}
