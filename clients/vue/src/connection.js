import { computed } from "vue";
import { useStore } from "./lifetime.js";
import { useDualcast } from "./plugin.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {DualcastClient["status"]} Status */

/** On a server, and until a component is mounted. @type {Status} */
const OFF = { status: "off", transport: null, stage: "", leader: true, stopped: null };

/**
 * How the connection stands, in refs: `status`, `transport`, `stage`, `leader`, `stopped` as the client has them, and
 * `connected`: publications come.
 * @param {{client?: DualcastClient}} [options]
 */
export function useConnectionStatus(options = {}) {
  const client = useDualcast(options.client);
  const now = useStore(
    { get: () => client.status, subscribe: (/** @type {() => void} */ changed) => client.on("connection", changed) },
    OFF,
  );
  return {
    status: computed(() => now.value.status),
    transport: computed(() => now.value.transport),
    stage: computed(() => now.value.stage),
    leader: computed(() => now.value.leader),
    stopped: computed(() => now.value.stopped),
    connected: computed(() => now.value.status === "live"),
    connect: () => client.connect(),
    disconnect: () => client.disconnect(),
  };
}
