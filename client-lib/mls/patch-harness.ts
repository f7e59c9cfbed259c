/**
 * Test support: ts-mls as it is published and as we patch it, and groups made with either
 * directly, so that each row of our patch can be seen red and green.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { systemRandom } from '@quicprochat/proto';
import type {
  CiphersuiteImpl,
  ClientState,
  GroupContext,
  GroupContextExtension,
  KeyPackage,
  MlsContext,
  MlsFramedMessage,
  PrivateKeyPackage,
  PrivateMessage,
  ProcessMessageResult,
  Proposal,
  RatchetTree,
  UpdatePath,
} from 'ts-mls';
import type * as TsMls from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const installed = join(repository, 'node_modules/ts-mls');

/** Functions of ts-mls's inner modules that rows are about; typed as its own .d.ts files say. */
export interface DeepTsMls {
  readonly validateRatchetTree: (
    tree: RatchetTree,
    context: GroupContext,
    lifetime: TsMls.LifetimeConfig,
    authService: TsMls.AuthenticationService,
    treeHash: Uint8Array,
    cs: CiphersuiteImpl,
  ) => Promise<Error | undefined>;
  readonly applyUpdatePath: (
    tree: RatchetTree,
    senderLeafIndex: number,
    path: UpdatePath,
    hash: TsMls.Hash,
  ) => Promise<void>;
  readonly initializeEpoch: (
    initSecret: Uint8Array,
    commitSecret: Uint8Array,
    context: GroupContext,
    pskSecret: Uint8Array,
    kdf: TsMls.Kdf,
  ) => Promise<{ keySchedule: TsMls.KeySchedule }>;
  readonly decryptWithLabel: (
    key: TsMls.PrivateKey,
    label: string,
    context: Uint8Array,
    kemOutput: Uint8Array,
    ciphertext: Uint8Array,
    hpke: TsMls.Hpke,
  ) => Promise<Uint8Array>;
  readonly groupContextEncoder: TsMls.Encoder<GroupContext>;
  readonly extensionsEqual: (a: GroupContextExtension[], b: GroupContextExtension[]) => boolean;
  readonly protect: (
    senderDataSecret: Uint8Array,
    authenticatedData: Uint8Array,
    context: GroupContext,
    secretTree: TsMls.SecretTree,
    content: unknown,
    leafIndex: number,
    padding: TsMls.PaddingConfig,
    cs: CiphersuiteImpl,
  ) => Promise<{ privateMessage: PrivateMessage }>;
}

/** One copy of the library: its door and the inner functions. */
export interface Library {
  readonly tsMls: typeof TsMls;
  readonly deep: DeepTsMls;
}

async function load(packageDir: string): Promise<Library> {
  const module = async (name: string): Promise<object> =>
    (await import(pathToFileURL(join(packageDir, 'dist/src', name)).href)) as object;
  const parts = await Promise.all(
    [
      'clientState.js',
      'updatePath.js',
      'keySchedule.js',
      'crypto/hpke.js',
      'groupContext.js',
      'extension.js',
      'messageProtection.js',
    ].map(module),
  );
  return {
    tsMls: (await module('index.js')) as typeof TsMls,
    deep: Object.assign({}, ...parts) as DeepTsMls,
  };
}

/** An inner module of the installed copy, such as `treemath.js`; the caller names its type. */
export async function innerModule(name: string): Promise<object> {
  return (await import(pathToFileURL(join(installed, 'dist/src', name)).href)) as object;
}

/** The installed, patched copy. */
export function patchedLibrary(): Promise<Library> {
  return load(installed);
}

/**
 * A copy of the package with our patch taken out again, in a temporary directory that has a
 * node_modules of its own. The caller disposes of it.
 */
export async function publishedLibrary(): Promise<Library & Disposable & { directory: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-ts-mls-'));
  const modules = join(directory, 'node_modules');
  mkdirSync(modules);
  cpSync(installed, join(modules, 'ts-mls'), { recursive: true });
  cpSync(join(repository, 'patches'), join(directory, 'patches'), { recursive: true });
  cpSync(join(repository, 'package-lock.json'), join(directory, 'package-lock.json'));
  writeFileSync(
    join(directory, 'package.json'),
    JSON.stringify({ type: 'module', dependencies: { 'ts-mls': '2.0.0-rc.10' } }),
  );
  for (const scope of ['@hpke', '@noble']) {
    symlinkSync(join(repository, 'node_modules', scope), join(modules, scope));
  }
  const patchPackage = join(repository, 'node_modules/patch-package/index.js');
  execFileSync(process.execPath, [patchPackage, '--reverse'], { cwd: directory, stdio: 'pipe' });
  return {
    ...(await load(join(modules, 'ts-mls'))),
    directory,
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

const provider = createMlsCryptoProvider({ random: systemRandom });

/** The extension type that test members support besides the required ones. */
export const testExtensionType = 0xf0c0;

/** A client with one KeyPackage. */
export interface Client {
  readonly publicPackage: KeyPackage;
  readonly privatePackage: PrivateKeyPackage;
}

/** Groups in one suite over one copy of the library, every credential accepted. */
export class RawGroups {
  readonly library: Library;
  readonly cs: CiphersuiteImpl;
  readonly context: MlsContext;
  #clients = 0;

  private constructor(library: Library, cs: CiphersuiteImpl, context: MlsContext) {
    this.library = library;
    this.cs = cs;
    this.context = context;
  }

  static async open(library: Library, suite = 1): Promise<RawGroups> {
    const cs = await provider.getCiphersuiteImpl(suite);
    const authService = library.tsMls.unsafeTestingAuthenticationService;
    return new RawGroups(library, cs, { cipherSuite: cs, authService });
  }

  async client(cs: CiphersuiteImpl = this.cs): Promise<Client> {
    const { tsMls } = this.library;
    return tsMls.generateKeyPackage({
      credential: {
        credentialType: tsMls.defaultCredentialTypes.basic,
        identity: new TextEncoder().encode(`client ${this.#clients++}`),
      },
      capabilities: {
        versions: [tsMls.protocolVersions.mls10],
        ciphersuites: [this.cs.id],
        extensions: [testExtensionType],
        proposals: [],
        credentials: [tsMls.defaultCredentialTypes.basic],
      },
      lifetime: tsMls.defaultLifetime(),
      cipherSuite: cs,
    });
  }

  add({ publicPackage }: Client): Proposal {
    const proposalType = this.library.tsMls.defaultProposalTypes.add;
    return { proposalType, add: { keyPackage: publicPackage } };
  }

  remove(removed: number): Proposal {
    return { proposalType: this.library.tsMls.defaultProposalTypes.remove, remove: { removed } };
  }

  setExtensions(...data: Uint8Array[]): Proposal {
    const extensions = data.map((extensionData) =>
      this.library.tsMls.makeCustomExtension({ extensionType: testExtensionType, extensionData }),
    );
    return {
      proposalType: this.library.tsMls.defaultProposalTypes.group_context_extensions,
      groupContextExtensions: { extensions },
    };
  }

  /** A group of `size` members, the leaf of member i at index i. */
  async group(size: number): Promise<ClientState[]> {
    const { tsMls } = this.library;
    const creator = await this.client();
    const first = await tsMls.createGroup({
      context: this.context,
      groupId: systemRandom.bytes(16),
      keyPackage: creator.publicPackage,
      privateKeyPackage: creator.privatePackage,
    });
    const others = await Promise.all(Array.from({ length: size - 1 }, () => this.client()));
    return (
      await this.commit(
        [first],
        0,
        others.map((c) => this.add(c)),
        others,
      )
    ).states;
  }

  async join(client: Client, welcome: TsMls.MlsWelcomeMessage | undefined): Promise<ClientState> {
    if (welcome === undefined) throw new Error('no welcome');
    return this.library.tsMls.joinGroup({
      context: this.context,
      welcome: welcome.welcome,
      keyPackage: client.publicPackage,
      privateKeys: client.privatePackage,
    });
  }

  async create(
    state: ClientState,
    proposals: Proposal[],
    wireAsPublicMessage = false,
    context: MlsContext = this.context,
  ): Promise<TsMls.CreateCommitResult> {
    return this.library.tsMls.createCommit({
      context,
      state,
      extraProposals: proposals,
      ratchetTreeExtension: true,
      wireAsPublicMessage,
    });
  }

  async process(
    state: ClientState,
    message: MlsFramedMessage,
    context: MlsContext = this.context,
  ): Promise<ProcessMessageResult> {
    return this.library.tsMls.processMessage({ context, state, message });
  }

  /**
   * Commits and lets all others process and the added join. States are by leaf index, with
   * holes where nobody is; a removed member's last state comes back in `gone`.
   */
  async commit(
    states: readonly ClientState[],
    committer: number,
    proposals: Proposal[],
    joiners: readonly Client[] = [],
  ): Promise<{ states: ClientState[]; gone: ClientState[] }> {
    const from = states[committer];
    if (from === undefined) throw new Error('no committer');
    const { commit, welcome, newState } = await this.create(from, proposals);
    const next: ClientState[] = [];
    const gone: ClientState[] = [];
    next[committer] = newState;
    for (const [index, state] of states.entries()) {
      if (index === committer || state === undefined) continue;
      const result = await this.process(state, commit);
      if (result.newState.groupActiveState.kind === 'removedFromGroup') gone.push(result.newState);
      else next[index] = result.newState;
    }
    for (const client of joiners) {
      const joined = await this.join(client, welcome);
      next[joined.privatePath.leafIndex] = joined;
    }
    return { states: next, gone };
  }

  /** The update path of a commit that travels as a PublicMessage. */
  pathOf(commit: MlsFramedMessage): UpdatePath | undefined {
    if (!('publicMessage' in commit)) throw new Error('not a public message');
    const { content } = commit.publicMessage;
    if (!('commit' in content)) throw new Error('not a commit');
    return content.commit.path;
  }
}

/** The states of those who are there. */
export function present(states: readonly ClientState[]): ClientState[] {
  return states.filter((state) => state !== undefined);
}

/** A row: what RFC 9420 asks, and the check. */
export interface PatchRow {
  readonly row: number;
  readonly title: string;
  /** The published library never returns from this one. */
  readonly hangsUnpatched?: true;
  run(library: Library): Promise<void>;
}

/** The state at a leaf index; fails the test when nobody is there. */
export function at(states: readonly ClientState[], index: number): ClientState {
  const state = states[index];
  assert.ok(state, `a member at ${index}`);
  return state;
}

/** Fails the test unless all members are in the same epoch with the same secrets. */
export function agree(states: readonly ClientState[]): void {
  const [first, ...others] = present(states).map((s) => s.keySchedule.epochAuthenticator);
  for (const other of others) assert.deepEqual(other, first, 'members agree on the epoch');
}
