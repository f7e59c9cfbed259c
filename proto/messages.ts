/** Door of the generated messages: schemas and types of every `qpc/v1` file. */
export * from './gen/qpc/v1/admin_pb.ts';
export * from './gen/qpc/v1/auth_pb.ts';
export * from './gen/qpc/v1/card_pb.ts';
export * from './gen/qpc/v1/channel_pb.ts';
export * from './gen/qpc/v1/common_pb.ts';
export * from './gen/qpc/v1/content_pb.ts';
export * from './gen/qpc/v1/delivery_pb.ts';
export * from './gen/qpc/v1/device_pb.ts';
export * from './gen/qpc/v1/endpoint_pb.ts';
export * from './gen/qpc/v1/federation_pb.ts';
export * from './gen/qpc/v1/group_pb.ts';
export * from './gen/qpc/v1/keys_pb.ts';
export * from './gen/qpc/v1/kt_pb.ts';
export * from './gen/qpc/v1/mailbox_pb.ts';
export * from './gen/qpc/v1/manifest_pb.ts';
export * from './gen/qpc/v1/user_pb.ts';
export {
  create,
  fromBinary,
  toBinary,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
