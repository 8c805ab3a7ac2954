import { block } from './encode.js';
import type { OnnxGraph } from './graph.js';
import { type Field, Message, messageOf, numberOf, textOf } from './wire.js';

/** From this version of the format on, tensors of a graph need not be inputs of it, too. */
const FREE_VERSION = 4;

/** A changed model, whose new tensors are inputs of its graph where its version of the format asks for it, and those that went are none. */
export function withDeclared(model: Message, graph: OnnxGraph): Message {
  const version = model.bytes(1);
  if (version === undefined || numberOf(version) >= FREE_VERSION) return model;
  const fields = model.fields.map((field) =>
    field.number === 7 && field.payload instanceof Message ? block(7, declared(field.payload, graph)) : field,
  );
  return new Message(fields);
}

function declared(main: Message, { main: before, path }: OnnxGraph): Message {
  const tensors = new Map(
    main
      .all(5)
      .filter((payload) => payload instanceof Message)
      .map((tensor) => [textOf(tensor.bytes(8)), tensor]),
  );
  const fields = main.fields.filter(({ number, payload }) => {
    const name = number === 11 ? textOf(messageOf(payload as Uint8Array, path).bytes(1)) : '';
    return name === '' || !before.tensors.has(name) || tensors.has(name);
  });
  const made = [...tensors].filter(([name]) => !before.tensors.has(name));
  return new Message([...fields, ...made.map(([name, tensor]) => input(name, tensor))]);
}

/** An input of a tensor's name, type and shape. */
function input(name: string, tensor: Message): Field {
  const dims = tensor.fields.filter(({ number }) => number === 1).map((size) => block(1, new Message([size])));
  const type = tensor.fields.filter(({ number }) => number === 2).map((field) => ({ ...field, number: 1 }));
  const kind = new Message([block(1, new Message([...type, block(2, new Message(dims))]))]);
  return block(11, new Message([block(1, name), block(2, kind)]));
}
