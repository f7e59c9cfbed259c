/**
 * The page's look-up in a real Chromium: keys of an honest door are shown as verified, and a door
 * that lies is refused with the reason on the page.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { Chromium, chromiumMissing, type Page } from './chromium.ts';
import { LyingDoor } from './lying-door.ts';
import { domain, DoorRig } from './rig.ts';

interface Shown {
  readonly state: string;
  readonly text: string;
}

/** Types a name, submits, and waits for what the page shows in the end. */
function lookUp(page: Page, name: string): Promise<Shown> {
  return page.evaluate<Shown>(`new Promise((resolve) => {
    const output = document.querySelector('#result');
    output.dataset.state = 'asking';
    new MutationObserver((_, observer) => {
      const { state } = output.dataset;
      if (state === 'asking') return;
      observer.disconnect();
      resolve({ state, text: output.innerText });
    }).observe(output, { attributes: true });
    document.querySelector('#user').value = ${JSON.stringify(name)};
    document.querySelector('#look-up').requestSubmit();
  })`);
}

/** The page of a door, once its program runs. */
async function open(page: Page, url: string): Promise<void> {
  await page.goTo(`${url}/kt/`);
  const isReady = await page.evaluate<boolean>(`new Promise((resolve) => {
    const form = document.querySelector('#look-up');
    const check = () => { if (!form.hidden) resolve(true); else requestAnimationFrame(check); };
    check();
  })`);
  assert.ok(isReady);
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

const missing = chromiumMissing();
suite('the page in Chromium', { skip: missing ?? false, timeout: 120_000 }, () => {
  let chromium: Chromium;
  let rig: DoorRig;
  let door: LyingDoor;
  before(async () => {
    chromium = await Chromium.start();
    rig = await DoorRig.open({ publicSearch: true });
    await rig.register('alice');
    await rig.register('mallory');
    door = await LyingDoor.open(rig.url);
  });
  after(async () => {
    await door[Symbol.asyncDispose]();
    await rig[Symbol.asyncDispose]();
    await chromium[Symbol.asyncDispose]();
  });
  const search = (change: (body: Buffer) => Uint8Array): void => {
    door.lie = (path, body) => (path === '/kt/search' ? change(Buffer.from(body)) : undefined);
  };
  const honest = (): void => {
    door.lie = () => undefined;
  };

  test('an honest answer is verified, and the keys shown are those registered', async () => {
    honest();
    const page = await chromium.newPage();
    await open(page, door.url);
    const { state, text } = await lookUp(page, 'Alice');
    assert.equal(state, 'verified', text);
    assert.match(text, new RegExp(`alice@${domain}: verified`));
    const { accountKey, deviceKey } = rig.keysOf('alice');
    assert.match(text, new RegExp(hexOf(accountKey)));
    assert.match(text, new RegExp(hexOf(deviceKey)));
    // Asked again on the remembered head.
    assert.equal((await lookUp(page, 'alice')).state, 'verified');
    assert.deepEqual(page.complaints, []);
  });

  test('a swapped key is refused, with what was checked', async () => {
    const page = await chromium.newPage();
    await open(page, door.url);
    const { deviceKey } = rig.keysOf('alice');
    search((body) => {
      const at = body.indexOf(deviceKey);
      assert.ok(at > 0, 'the answer holds the key');
      body.set(rig.keysOf('mallory').deviceKey, at);
      return body;
    });
    const { state, text } = await lookUp(page, 'alice');
    assert.equal(state, 'refused', text);
    assert.match(text, /REFUSED/);
    // Which check sees it first depends on where the two labels lie in the tree.
    assert.match(text, /reason\s+(BAD_ROOT|BAD_SIGNATURE|LADDER)/);
    assert.doesNotMatch(text, new RegExp(hexOf(rig.keysOf('mallory').deviceKey)));
    honest();
    assert.equal((await lookUp(page, 'alice')).state, 'verified', 'the refusal changed nothing');
  });

  test("another person's answer is refused", async () => {
    const page = await chromium.newPage();
    await open(page, door.url);
    honest();
    await lookUp(page, 'mallory');
    const other = door.searches.at(-1) ?? new Uint8Array();
    await page.evaluate(`document.querySelector('#forget').click()`);
    search(() => other);
    const { state, text } = await lookUp(page, 'alice');
    assert.equal(state, 'refused', text);
    assert.match(text, /reason\s+BAD_VRF/);
  });

  test('an old answer is refused after a newer one was seen, also by a later visit', async () => {
    const page = await chromium.newPage();
    await open(page, door.url);
    honest();
    assert.equal((await lookUp(page, 'alice')).state, 'verified');
    const old = door.searches.at(-1) ?? new Uint8Array();
    await rig.rotate('alice');
    const newer = await lookUp(page, 'alice');
    assert.match(newer.text, /version\s+1\b/);
    search(() => old);
    const { state, text } = await lookUp(page, 'alice');
    assert.equal(state, 'refused', text);
    assert.match(text, /reason\s+(?:ROLLBACK|NOT_MONOTONIC|COUNT)/);
    await open(page, door.url);
    assert.equal((await lookUp(page, 'alice')).state, 'refused');
    honest();
    assert.equal((await lookUp(page, 'alice')).state, 'verified');
  });

  test('a page that names other keys than before is refused until told to forget', async () => {
    await using other = await DoorRig.open({ publicSearch: true });
    await other.register('alice');
    const page = await chromium.newPage();
    honest();
    await open(page, door.url);
    await lookUp(page, 'alice');
    const html = new Uint8Array(await (await fetch(`${other.url}/kt/`)).arrayBuffer());
    door.lie = (path) => (path === '/kt/' ? html : undefined);
    await open(page, door.url);
    const { state, text } = await lookUp(page, 'alice');
    assert.equal(state, 'refused', text);
    assert.match(text, /keys of the log/);
    honest();
  });

  test('no answer is neither verified nor refused', async () => {
    honest();
    const page = await chromium.newPage();
    await open(page, door.url);
    const { state, text } = await lookUp(page, 'nobody');
    assert.equal(state, 'unanswered', text);
    assert.match(text, /knows no such user/);
    search((body) => body.subarray(0, 3));
    assert.equal((await lookUp(page, 'alice')).state, 'refused');
  });
});
