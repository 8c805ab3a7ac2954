/** Most threads of a call: beyond any machine's cores, and short of what exhausts a process. */
export const MAX_THREADS = 256;
