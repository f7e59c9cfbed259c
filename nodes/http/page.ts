/**
 * The page /kt/ for people: plain HTML that reads without script. Script is only in the look-up,
 * and comes from the door's own module files.
 */
import { hex } from '@quicprochat/proto';
import { configuration, encode, formatVkey, isConvicted } from '@quicprochat/kt-log';
import { severity, type PageFacts } from './facts.ts';
import type { LogOfPage } from './look-up.ts';

export const pageCss = `:root{color-scheme:light dark;--line:#8886;--bad:#c22;--good:#182}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
code,pre,dd,td.id{font-family:ui-monospace,monospace;font-size:.85rem;overflow-wrap:anywhere}
pre{border:1px solid var(--line);padding:.7rem;white-space:pre-wrap}
table{border-collapse:collapse;width:100%}td,th{text-align:left;border-bottom:1px solid var(--line);padding:.3rem .6rem .3rem 0;vertical-align:top}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:#888}dd{margin:0}
.bad,[data-state=refused]{color:var(--bad);font-weight:600}.good,[data-state=verified]>p{color:var(--good);font-weight:600}
[data-state=refused] dl{font-weight:400}
svg{width:100%;height:3rem}rect{fill:currentColor;opacity:.55}
input{font:inherit;padding:.3rem;width:18rem;max-width:100%}button{font:inherit;padding:.3rem .8rem}
`;

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escape = (text: string): string => text.replace(/[&<>"']/g, (found) => escapes[found] ?? '');
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

/** "3 minutes": the largest unit of which there are at least two. */
export function duration(ms: number): string {
  const units: readonly (readonly [string, number])[] = [
    ['day', 86_400_000],
    ['hour', 3_600_000],
    ['minute', 60_000],
    ['second', 1000],
  ];
  const [name, unitMs] = units.find(([, unit]) => ms >= 2 * unit) ?? ['second', 1000];
  const count = Math.max(0, Math.round(ms / unitMs));
  return `${count} ${name}${count === 1 ? '' : 's'}`;
}

/** The look-up's program; undefined: the operator did not allow public searches. */
export interface LookUp {
  readonly entry: string;
}

export function renderPage(facts: PageFacts, lookUp: LookUp | undefined): string {
  const { domain } = facts;
  const title = `Key log of ${domain}`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<link rel="stylesheet" href="/kt/page.css">${
    lookUp === undefined ? '' : `\n<script type="module" src="${escape(lookUp.entry)}"></script>`
  }
</head><body>
<h1>${escape(title)}</h1>
<p>Every key of every user of ${escape(domain)} stands in this log, and each change adds a line that
nobody can take back or show to one person only. The other nodes replay it and sign what they saw.</p>
${verdict(facts)}${lookUpSection(facts, lookUp)}${stateSection(facts)}${cosignerSection(facts)}${auditSection(facts)}${evidenceSection(facts)}${rulesSection(facts)}${checkSection(facts)}</body></html>
`;
}

function verdict(facts: PageFacts): string {
  const convicted = facts.audits.filter(({ status }) => isConvicted(status));
  const own = facts.evidence.filter(({ origin }) => origin === facts.identity.origin);
  return [
    ...(own.length > 0 ? ['There is evidence against this very log: see below.'] : []),
    ...convicted.map(({ origin, status }) => `The log ${origin} is ${status}: see below.`),
  ]
    .map((line) => `<p class="bad">${escape(line)}</p>\n`)
    .join('');
}

function lookUpSection(facts: PageFacts, lookUp: LookUp | undefined): string {
  if (lookUp === undefined) {
    return `<h2>Look up a person</h2>
<p>This node answers searches to its own users and to its peers only.</p>
`;
  }
  const log: LogOfPage = {
    domain: facts.domain,
    config: base64(encode(configuration, facts.config)),
    vkey: formatVkey(facts.identity.key),
    policy: facts.policyText,
  };
  // In a script element only "</" could end the data early.
  const data = JSON.stringify(log).replaceAll('<', '\\u003c');
  return `<h2>Look up a person</h2>
<p>The answer is verified in this browser, and has to continue what this browser saw before.
Whoever fears that this page itself lies uses <code>qpc</code> or <code>qpc-audit</code>, which
bring their own code.</p>
<noscript><p>The look-up needs script: verifying is its point.</p></noscript>
<form id="look-up" hidden><input id="user" placeholder="alice@${escape(facts.domain)}" autocomplete="off" maxlength="255" required>
<button>look up</button> <button type="button" id="forget">forget what was seen</button></form>
<div id="result" aria-live="polite"></div>
<script type="application/json" id="log">${data}</script>
`;
}

function stateSection({ size, head, hourly, nowMs }: PageFacts): string {
  if (head === undefined) return '<h2>State</h2>\n<p>The log is empty.</p>\n';
  const most = Math.max(1, ...hourly);
  const bars = hourly
    .map((count, hour) => {
      const height = (count / most) * 30;
      return `<rect x="${hour * 10}" y="${(30 - height).toFixed(1)}" width="8" height="${height.toFixed(1)}"/>`;
    })
    .join('');
  const total = hourly.reduce((sum, count) => sum + count, 0);
  return `<h2>State</h2>
<dl><dt>entries</dt><dd>${size}</dd>
<dt>newest entry</dt><dd>${duration(nowMs - head.timestampMs)} ago</dd>
<dt>KEYTRANS root</dt><dd>${hex(head.root)}</dd>
<dt>RFC 6962 root</dt><dd>${hex(head.rfc6962Root)}</dd></dl>
<p>Entries in each of the last ${hourly.length} hours, ${total} in all, at most ${Math.max(0, ...hourly)} in one:</p>
<svg viewBox="0 0 ${hourly.length * 10} 30" preserveAspectRatio="none" role="img" aria-label="entries per hour">${bars}</svg>
`;
}

function cosignerSection({ cosigners, policyText, size, nowMs }: PageFacts): string {
  if (cosigners.length === 0) {
    return `<h2>Cosigners</h2>
<p>This node has no peers that cosign its log.</p>
`;
  }
  const inQuorum = (name: string): boolean =>
    policyText.split('\n').some((line) => line.startsWith(`witness ${name} `));
  const rows = cosigners.map(({ name, signed }) => {
    const last =
      signed === undefined
        ? '<td colspan="2">nothing since this node started</td>'
        : `<td>${signed.size}${signed.size === size ? ' (newest)' : ''}</td><td>${duration(nowMs - signed.atMs)} ago</td>`;
    return `<tr><td class="id">${escape(name)}</td><td>Ed25519</td>${last}<td>${inQuorum(name) ? 'yes' : 'no'}</td></tr>`;
  });
  return `<h2>Cosigners</h2>
<p>A <em>witness</em> signs that the log only grew, an <em>auditor</em> that it replayed every entry.</p>
<table><tr><th>name</th><th>algorithm</th><th>last size</th><th>when</th><th>counts for the quorum</th></tr>
${rows.join('\n')}</table>
<p>The policy that clients of this node use, in C2SP tlog-policy syntax:</p>
<pre>${escape(policyText)}</pre>
`;
}

function auditSection({ audits }: PageFacts): string {
  if (audits.length === 0) return '';
  const rows = [...audits]
    .sort((a, b) => severity(b.status) - severity(a.status))
    .map(({ origin, status, size, knownSize }) => {
      const mark = isConvicted(status) ? ' class="bad"' : '';
      return `<tr><td class="id">${escape(origin)}</td><td${mark}>${status ?? 'not seen yet'}</td><td>${size} of ${Math.max(size, knownSize)}</td></tr>`;
    });
  return `<h2>Logs that this node audits</h2>
<table><tr><th>log</th><th>verdict</th><th>entries replayed</th></tr>
${rows.join('\n')}</table>
`;
}

function evidenceSection({ evidence }: PageFacts): string {
  if (evidence.length === 0) {
    return `<h2>Evidence</h2>
<p class="good">No log that this node knows was ever caught.</p>
`;
  }
  const rows = evidence.map(({ origin, kind, hash, foundMs }) => {
    const name = hex(hash);
    const date = new Date(foundMs).toISOString().slice(0, 19).replace('T', ' ');
    return `<tr><td class="id">${escape(origin)}</td><td>${kind}</td><td>${date}</td><td class="id"><a href="/kt/evidence/${name}">${name.slice(0, 16)}…</a></td></tr>`;
  });
  return `<h2>Evidence</h2>
<p class="bad">Signed statements that cannot both be true. Anybody can check a file of it offline:
<code>qpc-audit verify-fork FILE</code>.</p>
<table><tr><th>against</th><th>kind</th><th>found (UTC)</th><th>file</th></tr>
${rows.join('\n')}</table>
`;
}

function rulesSection({ identity, config }: PageFacts): string {
  const vkey = formatVkey(identity.key);
  return `<h2>Keys and rules</h2>
<dl><dt>origin</dt><dd>${escape(identity.origin)}</dd>
<dt>checkpoint key</dt><dd>${escape(vkey)}</dd>
<dt>tree head key</dt><dd>${hex(config.signaturePublicKey)}</dd>
<dt>VRF key</dt><dd>${hex(config.vrfPublicKey)}</dd></dl>
<ul><li>Cipher suite ${config.cipherSuite} (KT_128_SHA256_Ed25519), contact monitoring: people look after
their own keys and those of their contacts.</li>
<li>A client takes a newest entry that is at most ${duration(config.maxBehindMs)} old, and at most
${duration(config.maxAheadMs)} ahead of its own clock.</li>
<li>Everybody looks after their own keys at least once in ${duration(config.reasonableMonitoringWindowMs)}.</li>
<li>${config.maximumLifetimeMs === undefined ? 'Entries never expire.' : `Entries expire after ${duration(config.maximumLifetimeMs)}.`}</li></ul>
`;
}

function checkSection({ identity, size }: PageFacts): string {
  const vkey = escape(formatVkey(identity.key));
  return `<h2>Check it yourself</h2>
<p>The newest checkpoint is a C2SP signed note, the log a C2SP tiled log. With the address of this
page instead of <code>$U</code>:</p>
<pre>curl -s $U/kt/checkpoint                # size and roots, signed; key: ${vkey}
curl -s $U/kt/tile/0/000${size >= 256 ? '' : `.p/${Math.max(size, 1)}`} | sha256sum   # hashes of the first entries
qpc-audit follow $U --once              # replays every entry and prints a report</pre>
<p>Beside the tiles: <code>/kt/audit/0</code>, <code>/kt/audit/1</code>, … hold 256 entries each with
their proofs, <code>/.well-known/qpc</code> the node's signed record.</p>
`;
}
