/** What a client is told of a failure, as OpenAI's API has it. */
export class Failure extends Error {
  readonly statusCode: number;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;

  constructor(
    statusCode: number,
    message: string,
    { type, param = null, code = null }: { type?: string; param?: string | null; code?: string | null } = {},
  ) {
    super(message);
    this.statusCode = statusCode;
    this.type = type ?? (statusCode >= 500 ? 'server_error' : 'invalid_request_error');
    this.param = param;
    this.code = code;
  }
}

/** The same for an error of any kind; what is unforeseen is told without its message. */
export function failureOf(error: unknown): { failure: Failure; unforeseen: boolean } {
  if (error instanceof Failure) return { failure: error, unforeseen: false };
  const { code, statusCode, message } = error as { code?: string; statusCode?: number; message: string };
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    const text = 'The body must be JSON, and the header content-type application/json.';
    return { failure: new Failure(415, text), unforeseen: false };
  }
  const ours = code === 'ERR_INVALID_ARGUMENT' || code === 'ERR_INVALID_OPTION';
  const status = statusCode ?? (ours ? 400 : 500);
  if (status >= 500) return { failure: new Failure(status, 'The server failed.'), unforeseen: true };
  return { failure: new Failure(status, message), unforeseen: false };
}
