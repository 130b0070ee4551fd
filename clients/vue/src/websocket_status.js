import { labelsOf } from "@dualcast/client/stores";
import { defineComponent, h } from "vue";
import { useConnectionStatus } from "./connection.js";

/**
 * The connection in words (已连接, 未连接) and colour; with `controls` buttons to connect and to disconnect. A screen
 * reader is told when the word changes, not of every attempt between.
 */
export const WebSocketStatus = defineComponent({
  name: "WebSocketStatus",
  props: {
    /** In place of the app's. */
    client: { type: /** @type {import("vue").PropType<import("@dualcast/client").DualcastClient>} */ (Object), default: undefined },
    controls: { type: Boolean, default: true },
    /** `EN`, or own words in place of some. */
    labels: { type: /** @type {import("vue").PropType<Partial<import("@dualcast/client/stores").Labels>>} */ (Object), default: undefined },
  },
  setup(props) {
    const { status, transport, stopped, connected, connect, disconnect } = useConnectionStatus({ client: props.client });
    return () => {
      const words = labelsOf(props.labels);
      const now = status.value;
      const busy = now === "connecting" || now === "waiting";
      const detail = connected.value ? transport.value : busy || now === "stopped" ? words[now] : null;
      const [press, text] = connected.value || busy ? [disconnect, words.disconnect] : [connect, words.connect];
      return h(
        "div",
        {
          class: "dc-status",
          role: "group",
          "aria-label": words.status,
          lang: words.lang,
          "data-status": now,
          title: stopped.value?.reason || undefined,
        },
        [
          h("span", { class: "dc-status-dot", "aria-hidden": "true" }),
          h("span", { class: "dc-status-text", role: "status" }, connected.value ? words.connected : words.disconnected),
          detail && h("span", { class: "dc-status-detail" }, detail),
          props.controls && h("button", { type: "button", class: "dc-button", onClick: press }, text),
        ],
      );
    };
  },
});
