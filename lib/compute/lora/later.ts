/** What layers with adapters need, read when the first one is made: importing the package takes no time for it. */
export const loadLora = async () => (await import('./set.js')).LoraSet;
