/**
 * Bytes that wait, to be read or to be sent, hold about as much memory as there are of them. Without
 * this a peer decides what they cost: an answer of twenty bytes keeps the slab of 64 KiB that it was
 * encoded into, a record of one byte the whole chunk that it came with.
 */

/** Shorter pieces share a block (bytes): an object for each of them would be larger than it. */
const smallBytes = 512;
/** Twice that, so that at most half of a block stays empty. */
const blockBytes = 2 * smallBytes;

/** The bytes, in memory at most twice as long: where they are in a longer one, a copy. */
export function fitted(bytes: Uint8Array): Uint8Array {
  if (2 * bytes.byteLength >= bytes.buffer.byteLength) return bytes;
  return new Uint8Array(bytes);
}

/** A queue of bytes that nobody has asked for yet. */
export class WaitingBytes {
  #pieces: Uint8Array[] = [];
  /** Memory of the last piece where that is small, and how much of it is taken. */
  #block: Uint8Array | undefined;
  #taken = 0;
  #length = 0;

  /** How many bytes wait. */
  get length(): number {
    return this.#length;
  }

  /** The caller must not change the bytes any more. */
  add(bytes: Uint8Array): void {
    this.#length += bytes.length;
    if (bytes.length >= smallBytes) {
      this.#block = undefined;
      this.#pieces.push(fitted(bytes));
    } else if (bytes.length > 0) {
      this.#addSmall(bytes);
    }
  }

  #addSmall(bytes: Uint8Array): void {
    const last = this.#pieces.at(-1);
    if (last && this.#block && this.#taken + bytes.length <= blockBytes) {
      this.#block.set(bytes, this.#taken);
      this.#taken += bytes.length;
      this.#pieces[this.#pieces.length - 1] = this.#block.subarray(0, this.#taken);
      return;
    }
    this.#block = new Uint8Array(blockBytes);
    this.#block.set(bytes);
    this.#taken = bytes.length;
    this.#pieces.push(this.#block.subarray(0, this.#taken));
  }

  /** The next bytes in order; undefined when none wait. */
  take(): Uint8Array | undefined {
    const piece = this.#pieces.shift();
    // What was handed out is the reader's: nothing more goes into its memory.
    if (this.#pieces.length === 0) this.#block = undefined;
    this.#length -= piece?.length ?? 0;
    return piece;
  }
}
