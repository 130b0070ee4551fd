import { defineComponent, onBeforeUnmount, onMounted, watch } from "vue";
import { isAuthenticated } from "./config.js";
import { useWebSocketStore } from "./websocket_store.js";

/**
 * The root of an older app (S1.30), around its slot: connects when it is mounted and the user is signed in,
 * disconnects when it is unmounted. It also follows a user who signs in or out in between.
 */
export const WebSocketRoot = defineComponent({
  name: "WebSocketRoot",
  setup(_, { slots }) {
    const store = useWebSocketStore();
    onMounted(() => {
      if (isAuthenticated()) store.connect();
      watch(isAuthenticated, (is) => (is ? store.connect() : store.disconnect()));
    });
    onBeforeUnmount(() => store.disconnect());
    return () => slots.default?.();
  },
});
