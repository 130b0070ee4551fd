import { hubOf, OFF } from "@dualcast/client/stores";
import { computed } from "vue";
import { useStore } from "./lifetime.js";
import { useDualcast } from "./plugin.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */

/**
 * How the connection stands, in refs: `status`, `transport`, `stage`, `leader`, `stopped` as the client has them, and
 * `connected`: publications come.
 * @param {{client?: DualcastClient}} [options]
 */
export function useConnectionStatus(options = {}) {
  const client = useDualcast(options.client);
  const now = useStore(hubOf(client).connection, OFF);
  return {
    status: computed(() => now.value.status),
    transport: computed(() => now.value.transport),
    stage: computed(() => now.value.stage),
    leader: computed(() => now.value.leader),
    stopped: computed(() => now.value.stopped),
    connected: computed(() => now.value.connected),
    connect: () => client.connect(),
    disconnect: () => client.disconnect(),
  };
}
