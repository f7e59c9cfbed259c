/**
 * The only import of ts-mls at run time, and the check that our patch is in it
 * (patches/ts-mls+2.0.0-rc.10.patch). The package as published must never run: a member it
 * removed can derive the next epoch.
 */
import * as library from 'ts-mls';

// Work at import, on purpose: nothing below may load over an unpatched copy. Read by name,
// since a static import of a missing export would fail before anything could explain it.
if (Reflect.get(library, 'qpcPatch') !== 1) {
  throw new Error(
    'ts-mls is not patched: run `npm run patch` in the repository ' +
      '(an install with --ignore-scripts leaves the patch out)',
  );
}

export {
  clientStateDecoder,
  clientStateEncoder,
  createApplicationMessage,
  createCommit,
  createGroup,
  createGroupInfoWithExternalPubAndRatchetTree,
  contentTypes,
  defaultCredentialTypes,
  defaultExtensionTypes,
  defaultProposalTypes,
  encode,
  generateKeyPackageWithKey,
  groupStateDecoder,
  groupStateEncoder,
  isDefaultCredential,
  isDefaultProposal,
  joinGroupExternal,
  joinGroupWithExtensions,
  keyPackageDecoder,
  keyPackageEncoder,
  makeCustomExtension,
  makeKeyPackageRef,
  mlsExporter,
  mlsMessageDecoder,
  mlsMessageEncoder,
  nodeTypes,
  processMessage,
  proposalOrRefTypes,
  protocolVersions,
  senderTypes,
  wireformats,
} from 'ts-mls';
