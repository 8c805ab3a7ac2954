/**
 * What to do where Node.js itself keeps the addon out, as sentences; undefined for failures that have other reasons. `--no-addons`
 * forbids addons, and so does `--permission` without `--allow-addons`; without `--allow-fs-read` none can be looked for.
 */
export function forbidden(error: unknown): string | undefined {
  const { code, resource } = error as { readonly code?: unknown; readonly resource?: unknown };
  let remedy: string;
  if (code === 'ERR_ACCESS_DENIED') {
    remedy = `may not read ${resource} (--permission): add --allow-fs-read, and --allow-addons`;
  } else if (code === 'ERR_DLOPEN_DISABLED') {
    // Undefined unless permissions are in force, whatever the types say.
    const { permission } = process as { readonly permission?: unknown };
    const flag = (name: string) => `${process.execArgv} ${process.env.NODE_OPTIONS}`.includes(name);
    const remedies = [
      ...(permission === undefined || flag('--no-addons') ? ['start it without --no-addons (NODE_OPTIONS?)'] : []),
      ...(permission === undefined || flag('--allow-addons') ? [] : ['add --allow-addons to --permission']),
    ];
    remedy = `is told not to load addons: ${remedies.join(', and ')}`;
  } else return undefined;
  return `Node.js ${remedy}. Without, JavaScript computes the same results, many times slower.`;
}
