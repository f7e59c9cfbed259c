/** Node-held secrets by name. They are encrypted with the file and by nothing else. */
import { ConflictError } from '@quicprochat/proto';
import type { Operations, QueryContext } from '../operations.ts';

export function secretQueries({ db }: QueryContext): Pick<Operations, 'secret' | 'putSecret'> {
  const get = db.prepare<[string], Uint8Array>('SELECT value FROM secret WHERE name = ?').pluck();
  const insert = db.prepare<[string, Uint8Array]>('INSERT INTO secret (name, value) VALUES (?, ?)');

  return {
    secret: (_nowMs, name) => get.get(name),
    putSecret(_nowMs, name, value) {
      const known = get.get(name);
      if (known === undefined) insert.run(name, value);
      else if (Buffer.compare(known, value) !== 0) {
        throw new ConflictError('NAME_TAKEN', `secret ${name} is set to another value`);
      }
    },
  };
}
