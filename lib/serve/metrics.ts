/** Seconds that buckets of the time to the first token end at. */
const BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** What a server has done since it began. */
export class Metrics {
  /** Requests for texts, by how they ended. */
  readonly requests = { received: 0, completed: 0, aborted: 0, refused: 0, failed: 0 };
  /** Tokens of prompts, those among them that were not read again, and tokens that were written. */
  readonly tokens = { prompt: 0, reused: 0, written: 0 };
  readonly #buckets = BUCKETS.map(() => 0);
  #firsts = 0;
  #firstSeconds = 0;

  /** The first token of a text has come, so long after it was asked for. */
  first(seconds: number): void {
    this.#firsts++;
    this.#firstSeconds += seconds;
    for (const [i, end] of BUCKETS.entries()) if (seconds <= end) this.#buckets[i]!++;
  }

  /** As Prometheus reads it. */
  text(gauges: { readonly active: number; readonly waiting: number }): string {
    const lines: string[] = [];
    const add = (name: string, type: string, help: string, values: readonly (readonly [string, number])[]) => {
      lines.push(`# HELP hqq_${name} ${help}`, `# TYPE hqq_${name} ${type}`);
      for (const [suffix, value] of values) lines.push(`hqq_${name}${suffix} ${value}`);
    };
    const ends = Object.entries(this.requests).filter(([name]) => name !== 'received');
    add('requests_received_total', 'counter', 'Requests for texts.', [['', this.requests.received]]);
    add(
      'requests_total',
      'counter',
      'Requests for texts, by how they ended.',
      ends.map(([name, count]) => [`{end="${name}"}`, count]),
    );
    add(
      'tokens_total',
      'counter',
      'Tokens: of prompts, of these not read again, written.',
      Object.entries(this.tokens).map(([name, count]) => [`{kind="${name}"}`, count]),
    );
    add('texts_active', 'gauge', 'Texts that are written.', [['', gauges.active]]);
    add('texts_waiting', 'gauge', 'Texts that wait to be.', [['', gauges.waiting]]);
    const buckets = BUCKETS.map((end, i) => [`_bucket{le="${end}"}`, this.#buckets[i]!] as const);
    const rest = [
      ['_bucket{le="+Inf"}', this.#firsts],
      ['_sum', this.#firstSeconds],
      ['_count', this.#firsts],
    ] as const;
    add('first_token_seconds', 'histogram', 'From a request to the first token of a text.', [...buckets, ...rest]);
    return `${lines.join('\n')}\n`;
  }
}
