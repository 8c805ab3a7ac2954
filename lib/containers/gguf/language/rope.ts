// The factors that llama.cpp divides the frequencies of rotary embeddings by, where a model was stretched as Llama 3 is.

export interface Llama3Scaling {
  readonly factor: number;
  readonly lowFactor: number;
  readonly highFactor: number;
  /** Positions that the model was trained for before. */
  readonly trained: number;
}

/** `rope_freqs.weight`: one factor for each pair of numbers of a head. */
export function llama3Factors(
  headDim: number,
  theta: number,
  { factor, lowFactor, highFactor, trained }: Llama3Scaling,
): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / headDim);
    if (wavelength < trained / highFactor) return 1;
    if (wavelength > trained / lowFactor) return factor;
    const share = (trained / wavelength - lowFactor) / (highFactor - lowFactor);
    return 1 / ((1 - share) / factor + share);
  });
}

/** How much two implementations' factors may differ by: those of llama.cpp's own converter are rounded otherwise. */
const NEAR = 1e-4;

/** Lengths that models are trained for, as powers of two. */
const SHORTEST = 5;
const LONGEST = 20;

/**
 * The scaling that has these factors, among those with Llama 3's bounds (1 and 4) and a trained length that is a power of two, as all
 * models of that family have; undefined where none has.
 */
export function scalingOf(factors: Float32Array, headDim: number, theta: number): Llama3Scaling | undefined {
  const factor = factors.at(-1)!;
  for (let power = SHORTEST; power <= LONGEST; power++) {
    // The shortest length that is as good as another gives the same factors.
    const scaling = { factor: roundedOf(factor), lowFactor: 1, highFactor: 4, trained: 2 ** power };
    const own = llama3Factors(headDim, theta, scaling);
    if (own.every((one, i) => Math.abs(one - factors[i]!) <= NEAR * one)) return scaling;
  }
  return undefined;
}

/** 8 for 7.9999995, which float32 may have made of it. */
function roundedOf(value: number): number {
  const whole = Math.round(value);
  return Math.abs(whole - value) < NEAR ? whole : value;
}
