/** The text of a file, which the build puts in the place of its import. */
declare module '*?raw' {
  const text: string;
  export default text;
}
