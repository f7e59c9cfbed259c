/**
 * Blanks comments, and also string, template and regular-expression text, out of TypeScript
 * source, so that a rule that looks for a name does not find it in prose. Lines and columns stay.
 * Not a parser: where a slash may divide or begin a pattern it goes by what stands before it.
 */

/** What is left of a source text; both have its length and its line breaks. */
export interface Blanked {
  /** Without comments. */
  readonly uncommented: string;
  /** Without comments and literal text; the quotes stay. */
  readonly code: string;
}

const beforePattern =
  /(?:^|[([{,;:=!&|?+\-*%~^<>}]|\b(?:return|typeof|case|in|of|do|else|void|delete|throw|await|yield))$/;

/** Blanks one source text. */
export function blank(text: string): Blanked {
  const uncommented = text.split('');
  const code = text.split('');
  const wipe = (from: number, to: number, alsoUncommented: boolean): void => {
    for (let i = from; i < to; i += 1) {
      if (text[i] === '\n') continue;
      code[i] = ' ';
      if (alsoUncommented) uncommented[i] = ' ';
    }
  };
  // Depths of open braces at which a template literal goes on after `${...}`.
  const templates: number[] = [];
  let depth = 0;
  let at = 0;
  // Text between the start and the closing backtick or the next `${`.
  const template = (start: number): number => {
    let i = start;
    while (i < text.length && text[i] !== '`' && !text.startsWith('${', i)) {
      i += text[i] === '\\' ? 2 : 1;
    }
    wipe(start, Math.min(i, text.length), false);
    if (text[i] !== '$') return i + 1;
    templates.push(depth);
    depth += 1;
    return i + 2;
  };
  if (text.startsWith('#!')) {
    at = lineEnd(text, 0);
    wipe(0, at, true);
  }
  while (at < text.length) {
    const char = text[at];
    if (text.startsWith('//', at)) {
      const end = lineEnd(text, at);
      wipe(at, end, true);
      at = end;
    } else if (text.startsWith('/*', at)) {
      const close = text.indexOf('*/', at + 2);
      const end = close < 0 ? text.length : close + 2;
      wipe(at, end, true);
      at = end;
    } else if (char === "'" || char === '"') {
      const end = quoteEnd(text, at);
      wipe(at + 1, end - 1, false);
      at = end;
    } else if (char === '`') {
      at = template(at + 1);
    } else if (char === '/' && beforePattern.test(lastWord(code, at))) {
      const end = patternEnd(text, at);
      wipe(at + 1, end - 1, false);
      at = end;
    } else {
      if (char === '{') depth += 1;
      if (char === '}') {
        depth -= 1;
        if (templates.at(-1) === depth) {
          templates.pop();
          at = template(at + 1);
          continue;
        }
      }
      at += 1;
    }
  }
  return { uncommented: uncommented.join(''), code: code.join('') };
}

function lineEnd(text: string, from: number): number {
  const end = text.indexOf('\n', from);
  return end < 0 ? text.length : end;
}

/** The index after the closing quote; a line break ends a broken literal. */
function quoteEnd(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text[i] !== text[start] && text[i] !== '\n') {
    i += text[i] === '\\' ? 2 : 1;
  }
  return Math.min(i + 1, text.length);
}

/** The index after the closing slash; a slash inside a class does not close. */
function patternEnd(text: string, start: number): number {
  let inClass = false;
  let i = start + 1;
  while (i < text.length && text[i] !== '\n' && (inClass || text[i] !== '/')) {
    if (text[i] === '[') inClass = true;
    if (text[i] === ']') inClass = false;
    i += text[i] === '\\' ? 2 : 1;
  }
  return Math.min(i + 1, text.length);
}

/** The code before `at` on this and earlier lines, trimmed, as far as a keyword reaches. */
function lastWord(code: readonly string[], at: number): string {
  let end = at;
  while (end > 0 && /\s/.test(code[end - 1] ?? '')) end -= 1;
  return code.slice(Math.max(0, end - 10), end).join('');
}
