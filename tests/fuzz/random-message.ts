/**
 * Requests that a schema allows and nobody asked for: every field of a message gets values of the lengths
 * and sizes that the protocol knows, of its own small corpus, or the worst that fit. Seeded.
 */
import {
  create,
  ScalarType,
  type DescField,
  type DescMessage,
  type MessageShape,
} from '@bufbuild/protobuf';
import { reflect, type ReflectMessage } from '@bufbuild/protobuf/reflect';
import { checkFields, type Method } from '@quicprochat/proto';
import type { Dice } from '../cluster/dice.ts';

/** Values that mean something to the node: keys, ids and names that are there. */
export interface Corpus {
  readonly bytes: readonly Uint8Array[];
  readonly texts: readonly string[];
}

/** Lengths of ids, keys, signatures, certificates; and what fits none of them. */
const lengths = [0, 1, 4, 8, 10, 16, 31, 32, 33, 48, 64, 65, 128, 1_000];
const largeBytes = 60_000;
const numbers = [0n, 1n, 2n, 5n, 255n, 256n, 65_535n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n - 1n];
const worst = [2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n];
const depthMax = 5;
/** Requests that are made until one passes the row's own rules; now and then the first goes whatever it is. */
const tries = 6;
const looseShare = 0.1;

export class RandomMessages {
  readonly #dice: Dice;
  readonly #corpus: Corpus;
  /** Where bytes are cut from: made once. */
  readonly #pool: Uint8Array;

  constructor(dice: Dice, corpus: Corpus) {
    this.#dice = dice;
    this.#corpus = corpus;
    this.#pool = dice.bytes(2 * largeBytes);
  }

  of<M extends DescMessage>(desc: M): MessageShape<M> {
    const message = create(desc);
    this.#fill(reflect(desc, message), 0);
    return message;
  }

  requestOf(method: Method): MessageShape<DescMessage> {
    let request = this.of(method.request);
    const isLoose = this.#dice.chance(looseShare);
    for (let n = 1; n < tries && !isLoose; n += 1) {
      try {
        checkFields(request, method.rules);
        break;
      } catch {
        request = this.of(method.request);
      }
    }
    return request;
  }

  #fill(message: ReflectMessage, depth: number): void {
    for (const member of message.members) {
      if (member.kind === 'field') {
        if (this.#dice.chance(0.85)) this.#set(message, member, depth);
      } else {
        const field = this.#one(member.fields);
        if (field !== undefined && this.#dice.chance(0.95)) this.#set(message, field, depth);
      }
    }
  }

  #set(message: ReflectMessage, field: DescField, depth: number): void {
    switch (field.fieldKind) {
      case 'scalar':
        return message.set(field, this.#scalar(field.scalar));
      case 'enum':
        return message.set(field, this.#dice.int(8));
      case 'message': {
        if (depth >= depthMax) return;
        const inner = reflect(field.message);
        this.#fill(inner, depth + 1);
        return message.set(field, inner);
      }
      case 'list': {
        const list = message.get(field);
        const count = this.#one(depth > 1 ? [0, 1, 1, 2] : [0, 1, 1, 1, 2, 3, 17, 300]) ?? 0;
        for (let index = 0; index < count; index += 1) {
          if (field.listKind === 'scalar') list.add(this.#scalar(field.scalar));
          else if (field.listKind === 'enum') list.add(this.#dice.int(8));
          else {
            if (depth >= depthMax) return;
            const inner = reflect(field.message);
            this.#fill(inner, depth + 1);
            list.add(inner);
          }
        }
        break;
      }
      case 'map':
        // The protocol has none.
        break;
    }
  }

  #scalar(type: ScalarType): unknown {
    const { bytes, texts } = this.#corpus;
    switch (type) {
      case ScalarType.BYTES:
        if (this.#dice.chance(0.5)) return this.#one(bytes) ?? new Uint8Array(0);
        return this.#cut(this.#dice.chance(0.01) ? largeBytes : (this.#one(lengths) ?? 0));
      case ScalarType.STRING:
        if (this.#dice.chance(0.7)) return this.#one(texts) ?? '';
        return 'x'.repeat(this.#one(lengths) ?? 0);
      case ScalarType.BOOL:
        return this.#dice.chance(0.5);
      case ScalarType.DOUBLE:
      case ScalarType.FLOAT:
        return this.#one([0, -1, 1, Number.NaN, Number.POSITIVE_INFINITY]);
      case ScalarType.INT64:
      case ScalarType.SINT64:
      case ScalarType.SFIXED64:
        return this.#one(numbers);
      case ScalarType.UINT64:
      case ScalarType.FIXED64:
        return this.#one([...numbers, ...numbers, ...worst]);
      case ScalarType.UINT32:
      case ScalarType.FIXED32:
        return Number(this.#one(numbers.filter((one) => one < 2n ** 32n)));
      default:
        return Number(this.#one(numbers.filter((one) => one < 2n ** 31n)));
    }
  }

  #cut(length: number): Uint8Array {
    const start = this.#dice.int(this.#pool.length - length);
    return this.#pool.subarray(start, start + length);
  }

  #one<T>(values: readonly T[]): T | undefined {
    return values[this.#dice.int(values.length)];
  }
}
