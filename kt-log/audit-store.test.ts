/** The memory store passes the suite of every AuditStore. */
import { auditStoreContract } from './audit-store-contract.ts';
import { MemoryAuditStore } from './audit-store.ts';

auditStoreContract('memory audit store', async () => new MemoryAuditStore());
