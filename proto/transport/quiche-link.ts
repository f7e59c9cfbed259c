/**
 * Drives one native quiche connection: packets in and out, its timer, keep-alive, its end. The
 * native object is let go at the end at once, because its memory is outside of V8's heap and its
 * collector does not see it. Knows no streams.
 */
import type { RemoteInfo } from 'node:dgram';
import type { Runtime, Timer } from '../runtime.ts';
import type { HeldBytes, HeldGuard } from './held-bytes.ts';
import { closeInfoOf, transportCode, windowBytes } from './quiche-native.ts';
import type { NativeAddress, NativeConnection, PathEvent, Quiche } from './quiche-native.ts';
import type { UdpSocket } from './quiche-socket.ts';
import type { Turn, TurnTaker } from './quiche-turn.ts';
import { CloseCode, type CloseInfo } from './transport.ts';

/** A closed connection answers late packets of its peer with its close for this long (ms). */
const lingerMs = 1000;
/** A close that the congestion window has no room for is tried for so long (ms). */
const partingMs = 3000;
/** Nor is it worth keeping more of the peer's than this for it (bytes). */
const partingBytes = 64 * 1024;
/** A close reason must fit into one packet. */
const maxReasonBytes = 256;
/** Packets that one connection may send in one turn before the others have theirs. */
const packetsPerTurn = 256;

export interface LinkOwner {
  /** TLS is complete on our side; runs before anything of the peer is taken in. */
  onEstablished(): void;
  /** Streams may have something to read, or room. */
  onTakeIn(): void;
  /** Runs before packets are built; `hasReceived` when packets came since the last time. */
  onGiveOut(hasReceived: boolean): void;
  /** The peer has a new address: what was under way to the old one may be lost for good. */
  onMoved(): void;
  /** Once, and the last but `onGone`. */
  onEnded(info: CloseInfo): void;
  /** Once: no packet of this connection is of use any more. */
  onGone(): void;
}

export interface LinkOptions {
  readonly quiche: Quiche;
  readonly runtime: Runtime;
  readonly turn: Turn;
  readonly socket: UdpSocket;
  readonly connection: NativeConnection;
  readonly owner: LinkOwner;
  /** What was done to get the connection. */
  readonly role: keyof typeof windowBytes;
  /** Hears of packets that the system refused, until the handshake is over. */
  readonly onSendError?: (error: Error) => void;
}

export class Link implements TurnTaker {
  readonly #quiche: Quiche;
  readonly #runtime: Runtime;
  readonly #turn: Turn;
  readonly #socket: UdpSocket;
  readonly #owner: LinkOwner;
  #onSendError: ((error: Error) => void) | undefined;
  #connection: NativeConnection | undefined;
  #isEstablished = false;
  #hasReceived = false;
  #receivedAt: number;
  /** Kept because a peer sends from one address nearly always. */
  #receiveInfo: { from: NativeAddress; to: NativeAddress };
  #hasMoved = false;
  readonly #guard: HeldGuard;
  readonly #held: HeldBytes;
  #timer: Timer | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #keepAlive: Timer | undefined;
  /** The last packet, and how many more the peer must send to get it again. */
  #closing: { packet: Uint8Array; every: number; left: number } | undefined;
  /** Ended, but its close could not leave yet. */
  #parting: NativeConnection | undefined;

  constructor(options: LinkOptions) {
    this.#quiche = options.quiche;
    this.#runtime = options.runtime;
    this.#turn = options.turn;
    this.#socket = options.socket;
    this.#connection = options.connection;
    this.#owner = options.owner;
    this.#onSendError = options.onSendError;
    this.#receivedAt = options.runtime.clock.monotonic();
    this.#receiveInfo = { from: { host: '', port: 0 }, to: options.socket.local };
    const { turn, role } = options;
    this.#guard = turn.held[role];
    this.#held = this.#guard.open({
      windowBytes: windowBytes[role],
      now: this.#receivedAt,
      taken: () => this.native?.stats().recvBytes ?? 0,
      end: () => this.#flooded(),
    });
  }

  /** The native connection until the end; do not keep it. */
  get native(): NativeConnection | undefined {
    return this.#connection;
  }

  receive(data: Buffer, from: RemoteInfo): void {
    const connection = this.native;
    if (!connection) return this.#answerLate(from);
    this.#held.received(data.length);
    const info = this.#receiveInfo;
    const isMoved = info.from.port !== from.port || info.from.host !== from.address;
    if (isMoved) {
      this.#receiveInfo = { from: { host: from.address, port: from.port }, to: info.to };
      // The first datagram from anywhere is no move.
      this.#hasMoved ||= info.from.port !== 0;
    }
    try {
      connection.recv(data, this.#receiveInfo);
      if (this.#hasMoved) this.#followPaths(connection);
    } catch (error) {
      // The packet broke a rule of QUIC or TLS: quiche closed the connection and has a packet that
      // says so. What could not be a packet of this connection it has dropped without an error.
      this.#runtime.log.debug('quic.packet.refused', { error: String(error) });
    }
    if (this.#hasReceived) return;
    // Once in a turn: what counts is whether the peer lives.
    this.#hasReceived = true;
    this.#receivedAt = this.#runtime.clock.monotonic();
    this.#turn.takeIn(this);
  }

  /** Takes quiche's events of paths: nobody asks for them otherwise, and they would pile up. */
  #followPaths(connection: NativeConnection): void {
    for (;;) {
      // Declared as never null, and null when there is none.
      const event = connection.pathEventNext() as PathEvent | null;
      if (event === null) return;
      // Our peers never probe: a new path is one that they use. 'PeerMigrated' comes a round trip later.
      if (event.type === 'New') this.#owner.onMoved();
    }
  }

  /** Has packets built and sent at the end of this turn. */
  wake(): void {
    if (this.native) this.#turn.giveOut(this);
  }

  /** So many bytes of a stream were read. */
  read(bytes: number): void {
    this.#held.read(bytes);
  }

  /** So many bytes of a stream were written. */
  written(bytes: number): void {
    this.#held.written(bytes);
  }

  /** STOP_SENDING for `read`, RESET_STREAM for `write`; nothing when the stream is gone. */
  shutdownStream(id: number, side: 'read' | 'write', code: number): void {
    const { Read, Write } = this.#quiche.Shutdown;
    try {
      this.native?.streamShutdown(id, side === 'read' ? Read : Write, code);
      this.wake();
    } catch {
      // It was freed, or runs the other way: nothing is left to shut.
    }
  }

  /** Has what arrived handed out at the end of this turn, though nothing new came. */
  takeInAgain(): void {
    if (this.native) this.#turn.takeIn(this);
  }

  takeIn(): void {
    const connection = this.native;
    if (!connection) return;
    try {
      if (!this.#isEstablished) {
        if (!connection.isEstablished()) return;
        this.#isEstablished = true;
        this.#held.established();
        this.#onSendError = undefined;
        this.#owner.onEstablished();
      }
      if (this.native) this.#owner.onTakeIn();
    } catch (error) {
      this.#fault(error);
    }
  }

  giveOut(): void {
    const connection = this.native;
    if (!connection) return;
    try {
      if (this.#isEstablished) this.#owner.onGiveOut(this.#hasReceived);
      this.#hasReceived = false;
      this.#sendPackets(connection);
      this.#held.settle(this.#runtime.clock.monotonic());
      if (!this.native) return;
      if (connection.isDraining() || connection.isClosed()) this.#end(closeInfoOf(connection));
      else this.#schedule(connection);
    } catch (error) {
      this.#fault(error);
    }
  }

  #sendPackets(connection: NativeConnection): void {
    for (let sent = 0; sent < packetsPerTurn; sent += 1) {
      const packet = connection.send(this.#socket.room());
      if (packet === null) return;
      this.#held.sentPacket();
      this.#socket.send(packet[0], packet[1].to, this.#onSendError);
    }
    this.#turn.giveOut(this);
  }

  /** quiche's timer moves with every packet: ours is only set anew when it would fire too late. */
  #schedule(connection: NativeConnection): void {
    const ms = connection.timeout();
    if (ms === null) return;
    const at = this.#runtime.clock.monotonic() + ms;
    if (at >= this.#timerAt) return;
    this.#timer?.cancel();
    this.#timerAt = at;
    this.#timer = this.#runtime.clock.timer(ms + 1, this.#onTimer);
  }

  readonly #onTimer = (): void => {
    this.#timerAt = Number.POSITIVE_INFINITY;
    try {
      this.native?.onTimeout();
      this.wake();
    } catch (error) {
      this.#fault(error);
    }
  };

  /** Makes the peer answer whenever nothing came from it for the time, or only what others made. */
  keepAlive(ms: number): void {
    let before = 0;
    const tick = (): void => {
      const connection = this.native;
      if (!connection) return;
      const silentMs = this.#runtime.clock.monotonic() - this.#receivedAt;
      let isSilent: boolean;
      try {
        const now = connection.stats().recv;
        isSilent = silentMs >= ms || now === before;
        before = now;
        if (isSilent) {
          connection.sendAckEliciting();
          this.wake();
        }
      } catch (error) {
        return this.#fault(error);
      }
      const nextMs = isSilent ? ms : ms - silentMs;
      this.#keepAlive = this.#runtime.clock.timer(nextMs, tick);
    };
    this.#keepAlive = this.#runtime.clock.timer(ms, tick);
  }

  /**
   * Ends the connection: CONNECTION_CLOSE leaves before this returns, or as
   * soon as the congestion window lets it; `onEnded` has run. A second time does nothing.
   */
  close(isApp: boolean, code: number, reason: string, info: CloseInfo): void {
    const connection = this.native;
    if (!connection) return;
    const bytes = new TextEncoder().encode(reason).subarray(0, maxReasonBytes);
    try {
      // What was written before goes first: a response, then the close.
      this.#sendPackets(connection);
      connection.close(isApp, code, bytes);
      if (!this.#sendClose(connection) && this.#held.bytes <= partingBytes) {
        this.#parting = connection;
      }
    } catch (error) {
      this.#runtime.log.warn('quic.close.fault', { error: String(error) });
    }
    this.#end(info);
  }

  /** False when the congestion window is full: quiche sends nothing then, not even this. */
  #sendClose(connection: NativeConnection): boolean {
    const packet = connection.send(this.#socket.room());
    if (packet === null) return false;
    const copy = this.#socket.room().slice(0, packet[0]);
    this.#socket.send(packet[0], packet[1].to);
    this.#closing = { packet: copy, every: 1, left: 1 };
    return true;
  }

  /** Ends without a packet: the socket is gone, or nobody must hear of it. */
  abandon(info: CloseInfo): void {
    if (this.native) this.#end(info);
  }

  /** The peer sent more that nobody can read than quiche should keep. */
  #flooded(): void {
    this.#runtime.log.warn('quic.connection.flooded', { bytes: Math.round(this.#held.bytes) });
    const code = this.#isEstablished ? CloseCode.Limit : transportCode.noError;
    const reason = 'too much that cannot be read';
    const info: CloseInfo = { failure: 'limit', code, reason, local: true };
    this.close(this.#isEstablished, code, reason, info);
  }

  /** quiche broke, or our own code on top of it: this connection ends and no other. */
  #fault(error: unknown): void {
    this.#runtime.log.warn('quic.connection.fault', { error: String(error) });
    const info: CloseInfo = {
      failure: 'internal',
      code: 0,
      reason: 'fault of the engine',
      local: true,
    };
    this.close(false, transportCode.internalError, '', info);
  }

  #end(info: CloseInfo): void {
    this.#connection = undefined;
    this.#guard.close(this.#held);
    this.#turn.forget(this);
    this.#turn.garbage.add(this.#held.bytes);
    this.#timer?.cancel();
    this.#keepAlive?.cancel();
    this.#owner.onEnded(info);
    // The peer's close needs no answer; ours may have been lost.
    if (this.#parting) this.#part(this.#parting, this.#runtime.clock.monotonic() + partingMs);
    else this.#linger();
  }

  #linger(): void {
    if (this.#closing) this.#timer = this.#runtime.clock.timer(lingerMs, () => this.release());
    else this.#owner.onGone();
  }

  /**
   * quiche takes in no acknowledgement once it is to close, but what it sends when they stay out (RFC
   * 9002 section 6.2) is not held up by the congestion window.
   */
  #part(connection: NativeConnection, untilMs: number): void {
    const nowMs = this.#runtime.clock.monotonic();
    const ms = connection.timeout() ?? partingMs;
    if (nowMs + ms > untilMs) return this.release();
    this.#timer = this.#runtime.clock.timer(ms + 1, () => {
      try {
        connection.onTimeout();
        if (!this.#sendClose(connection)) return this.#part(connection, untilMs);
        this.#parting = undefined;
        this.#linger();
      } catch (error) {
        this.#runtime.log.warn('quic.close.fault', { error: String(error) });
        this.release();
      }
    });
  }

  /** Stops to answer late packets. For an ended connection only. */
  release(): void {
    if (!this.#closing && !this.#parting) return;
    this.#closing = undefined;
    this.#parting = undefined;
    this.#timer?.cancel();
    this.#owner.onGone();
  }

  /** RFC 9000 section 10.2.1: the close again, ever more seldom. */
  #answerLate(from: RemoteInfo): void {
    const closing = this.#closing;
    if (!closing) return;
    closing.left -= 1;
    if (closing.left > 0) return;
    closing.every *= 2;
    closing.left = closing.every;
    this.#socket.sendCopy(closing.packet, { host: from.address, port: from.port });
  }
}
