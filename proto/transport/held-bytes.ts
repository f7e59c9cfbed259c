/**
 * What peers may make quiche keep. quiche 0.18 stores what it cannot hand out yet, however small, with
 * an allocation of its own: 190 bytes for a piece that took six on the wire. It tells of none of it, but
 * all of it was received and not read: each connection has an account of bytes that are explained by
 * nothing. Whoever goes too far is ended; of many that do together, the one that went farthest. What is
 * no packet of the peer's (an onlooker may write or repeat any) is dropped by quiche and counts for nobody.
 */

/** Bytes of a packet beside its frames' data, and of a packet that acknowledges one of ours. */
const packetBytes = 64;
/** Data that one packet carries, about. */
const dataBytes = 1024;
/** A loss makes a peer send some bytes again that were only late, and its acknowledgements longer. */
const readFactor = 1.5;
const writtenFactor = 0.25;
/** Keep-alive and the like (bytes a second). */
const idleBytesPerSecond = 32;
/** What may be explained before it comes: acknowledgements follow our data by a round trip. */
const inAdvanceBytes = 256 * 1024;
/** Above what flow control allows: one's overhead, and what a lossy path doubled. */
const spareBytes = 512 * 1024;
/** A handshake takes less than 10 KB; with its packets lost and sent again several times that. */
const handshakeBytes = 128 * 1024;
/** Whatever the others do, so little is nobody's fault. */
const innocentBytes = 4 * 1024;
/** After a look at all accounts that found only such, the next one waits for so much more. */
const lookEveryBytes = 64 * 1024;
/** quiche is asked what it took when an account has grown by so much: asking takes 18 us. */
const askEveryBytes = 64 * 1024;

/** What all connections of a process have together. */
export class HeldGuard {
  readonly #allowedBytes: number;
  readonly #accounts = new Set<HeldBytes>();
  /** Sum of what the accounts have above zero. */
  #bytes = 0;
  #lookAt: number;

  /** `allowedBytes`: of all together; quiche may need 30 times as much for them. */
  constructor(allowedBytes: number) {
    this.#allowedBytes = allowedBytes;
    this.#lookAt = allowedBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Its `end` closes the account. */
  open(options: AccountOptions): HeldBytes {
    const account = new HeldBytes(this, options);
    this.#accounts.add(account);
    return account;
  }

  close(account: HeldBytes): void {
    if (this.#accounts.delete(account)) this.#bytes -= account.bytes;
  }

  /** An account has changed. */
  changed(account: HeldBytes, byBytes: number): void {
    if (!this.#accounts.has(account)) return;
    this.#bytes += byBytes;
    if (this.#bytes <= this.#allowedBytes) this.#lookAt = this.#allowedBytes;
    if (byBytes <= 0) return;
    if (account.bytes > account.allowedBytes) account.end();
    while (this.#bytes > this.#lookAt) {
      let worst = account;
      for (const other of this.#accounts) if (other.bytes > worst.bytes) worst = other;
      if (worst.bytes <= innocentBytes) {
        this.#lookAt = this.#bytes + lookEveryBytes;
        return;
      }
      if (worst.forgive()) continue;
      worst.end();
      // One that does not go counts no more.
      this.close(worst);
    }
  }
}

export interface AccountOptions {
  /** What flow control lets the peer send before anything is read. */
  readonly windowBytes: number;
  /** Now (monotonic ms). */
  readonly now: number;
  /** Bytes of all packets that quiche took as the peer's, since the beginning. */
  readonly taken: () => number;
  /** The connection must go. */
  readonly end: () => void;
}

/** The account of one connection. Sums of a turn are settled at its end. */
export class HeldBytes {
  readonly #guard: HeldGuard;
  readonly #windowBytes: number;
  readonly #taken: () => number;
  readonly end: () => void;
  #unexplained = 0;
  /** All that came, less what is known to be none of the peer's. */
  #peers = 0;
  #askAt = askEveryBytes;
  #settledAt: number;
  #isEstablished = false;
  /** Of this turn. */
  #datagrams = 0;
  #received = 0;
  #reads = 0;
  #read = 0;
  #writes = 0;
  #written = 0;
  #sentPackets = 0;

  /** Use `HeldGuard.open`. */
  constructor(guard: HeldGuard, { windowBytes, now, taken, end }: AccountOptions) {
    this.#guard = guard;
    this.#windowBytes = windowBytes;
    this.#settledAt = now;
    this.#taken = taken;
    this.end = end;
  }

  /** Received, and explained by nothing. */
  get bytes(): number {
    return Math.max(0, this.#unexplained);
  }

  get allowedBytes(): number {
    return this.#isEstablished ? this.#windowBytes + spareBytes : handshakeBytes;
  }

  /**
   * The handshake is over: what quiche kept for it is freed, and from now on the peer may send what flow
   * control allows.
   */
  established(): void {
    this.#isEstablished = true;
    this.#guard.changed(this, -this.bytes);
    this.#unexplained = 0;
    this.#peers = this.#taken();
    this.#askAt = askEveryBytes;
    this.#datagrams = this.#received = 0;
  }

  /** A datagram came. */
  received(bytes: number): void {
    this.#datagrams += 1;
    this.#received += bytes;
  }

  /** Bytes of a stream were read. */
  read(bytes: number): void {
    this.#reads += 1;
    this.#read += bytes;
  }

  /** Bytes of a stream were written, which the peer will acknowledge. */
  written(bytes: number): void {
    this.#writes += 1;
    this.#written += bytes;
  }

  sentPacket(): void {
    this.#sentPackets += 1;
  }

  /** At the end of a turn. May end this connection, or another one. */
  settle(now: number): void {
    const before = this.bytes;
    this.#peers += this.#received;
    const idle = ((now - this.#settledAt) / 1000) * idleBytesPerSecond;
    this.#settledAt = now;
    // A packet full of junk explains itself by no byte that it brings; nor does a hundred of them that
    // came beside one.
    const readIn = Math.min(this.#datagrams, this.#reads + this.#read / dataBytes);
    const writtenIn = Math.min(this.#sentPackets, this.#writes + this.#written / dataBytes);
    const explained =
      this.#read * readFactor + this.#written * writtenFactor + (readIn + writtenIn) * packetBytes;
    this.#unexplained = Math.max(
      -inAdvanceBytes,
      this.#unexplained + this.#received - explained - idle,
    );
    this.#datagrams = this.#received = this.#reads = this.#read = 0;
    this.#writes = this.#written = this.#sentPackets = 0;
    if (this.bytes > Math.min(this.#askAt, this.allowedBytes)) this.#strike();
    this.#askAt = Math.min(this.#askAt, this.bytes + askEveryBytes);
    this.#guard.changed(this, this.bytes - before);
  }

  /** Takes out what quiche dropped; whether there was any. */
  forgive(): boolean {
    const before = this.bytes;
    this.#strike();
    this.#guard.changed(this, this.bytes - before);
    return this.bytes < before;
  }

  #strike(): void {
    const dropped = Math.max(0, this.#peers - this.#taken());
    this.#peers -= dropped;
    this.#unexplained -= dropped;
    this.#askAt = this.bytes + askEveryBytes;
  }
}
