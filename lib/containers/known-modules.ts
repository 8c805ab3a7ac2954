/**
 * What a matrix of a model is to those who made the model: the weight of a linear layer, of one that is the output head, of one
 * whose weight is `read` past it (so that it can be no other layer), of one that is stored `[in, out]` (`transposed`), a table of
 * embeddings, a stack of experts, something else, or one of these, as its configuration has it (`unsure`).
 */
export type ModuleKind = 'linear' | 'head' | 'read' | 'transposed' | 'embedding' | 'experts' | 'other' | 'unsure';

/** What is known of the modules of a model, by the names that its files give them. */
export interface KnownModules {
  /** The model's class: "BertForMaskedLM". */
  readonly name: string;
  /** Undefined for a module that such models do not have, as far as is known. */
  kindOf(module: string): ModuleKind | undefined;
  /** What those who load the model call a module; undefined for one that is not known. */
  moduleOf(module: string): string | undefined;
  /** The module whose weight is that of this one too; undefined where it has its own. */
  sourceOf(module: string): string | undefined;
  /** Whether transformers 5 reads its weight as it loads a model: with no tensor of that name it does not load. */
  isReadAtLoading(module: string): boolean;
  /** Which way each matrix of a stack of experts lies; undefined for what is none. */
  expertsOf(module: string): 'out-in' | 'in-out' | undefined;
}
