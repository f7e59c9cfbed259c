/**
 * A door that lies: it stands in front of an honest one, passes everything on, and changes what it
 * is told to change.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

/** Changes a reply's body; undefined leaves it. */
export type Lie = (path: string, body: Uint8Array) => Uint8Array | undefined;

export class LyingDoor implements AsyncDisposable {
  readonly #server: Server;
  readonly #behind: string;
  /** Applied to the replies from now on. */
  lie: Lie = () => undefined;
  /** Bodies of the searches that went through, as the honest door answered them. */
  readonly searches: Uint8Array[] = [];

  private constructor(behind: string) {
    this.#behind = behind;
    this.#server = createServer((request, response) => void this.#pass(request, response));
  }

  static async open(behind: string): Promise<LyingDoor> {
    const door = new LyingDoor(behind);
    door.#server.listen(0, '127.0.0.1');
    await once(door.#server, 'listening');
    return door;
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : 0}`;
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '/';
    const chunks: Uint8Array[] = [];
    for await (const chunk of request as AsyncIterable<Uint8Array>) chunks.push(chunk);
    const reply = await fetch(`${this.#behind}${path}`, {
      method: request.method ?? 'GET',
      ...(chunks.length === 0 ? {} : { body: Uint8Array.from(Buffer.concat(chunks)) }),
    });
    const body = new Uint8Array(await reply.arrayBuffer());
    if (path === '/kt/search') this.searches.push(body);
    const headers = ['content-type', 'content-security-policy', 'cache-control'].flatMap((name) => {
      const value = reply.headers.get(name);
      return value === null ? [] : [[name, value] as const];
    });
    response.writeHead(reply.status, Object.fromEntries(headers));
    response.end(this.lie(path, body) ?? body);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    if (this.#server.listening) await once(this.#server, 'close');
  }
}
