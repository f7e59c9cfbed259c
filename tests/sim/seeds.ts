/**
 * Seeds that found something in the product, kept for ever; `npm run sim -- --kept` runs them again. What
 * a seed does changes with the program and with the simulator, so the bug has a test of its own as well.
 */
export interface KeptSeed {
  readonly seed: number;
  readonly mix: string;
  readonly found: string;
}

export const keptSeeds: readonly KeptSeed[] = [
  {
    seed: 1,
    mix: 'requests',
    found: 'a client that closed while a send was failing used its closed store',
  },
  {
    seed: 1,
    mix: 'lost-disks',
    found: 'a copy sent again after a day was a repeat to the own node, and never left it',
  },
  {
    seed: 3,
    mix: 'lost-disks',
    found: 'the same, for a conversation of two people',
  },
  {
    seed: 5,
    mix: 'node-kills',
    found: 'two nodes that were back said hello to each other without end',
  },
  {
    seed: 1002,
    mix: 'late',
    found: 'an answer that came when its session was over stopped the outbox of the next one',
  },
  {
    seed: 1,
    mix: 'groups-fast',
    found: 'a wish to leave that arrived eleven epochs late was said again after a day only',
  },
  {
    seed: 1,
    mix: 'channels-crash-points',
    found:
      'a post that two nodes of its channel refused was told as lost, though it was due to be sealed anew',
  },
  {
    seed: 183_428_670,
    mix: 'channels-kills',
    found: 'a channel was never read by who came through its epochs in one step',
  },
  {
    seed: 20_002,
    mix: 'blocked-full',
    found:
      'a Welcome that its hub could not bring to an inbox full of strangers was brought again a day later only',
  },
  {
    seed: 350_138,
    mix: 'channels-groups',
    found:
      'a post that overtook the update of its channel came again a minute later, when its key was gone',
  },
  {
    seed: 430_074,
    mix: 'storm',
    found:
      'a gap that was answered before a late batch came was taken for a lost disk, and a repeat was taken anew, with another time',
  },
  {
    seed: 720_088,
    mix: 'channels-groups',
    found:
      'a post whose sender had not heard of the next epoch was sealed anew eight times in as many seconds, and given up',
  },
];
