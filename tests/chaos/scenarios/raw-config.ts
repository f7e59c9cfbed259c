/** What is lifted in the configuration of nodes that take raw load: rates, and the size of inboxes. */
import { unhurried } from '../company.ts';

export const rawConfig = `[limits]\ninbox_rows = 10000000\ninbox_mib = 10000\n${unhurried}`;
