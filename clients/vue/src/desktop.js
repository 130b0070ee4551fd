import { safeLink } from "@dualcast/client/stores";
import { readonly, ref } from "vue";
import { whileAlive } from "./lifetime.js";
import { useDualcast } from "./plugin.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {{id?: string, title: string, content?: string | null, link?: string | null}} Shown */

/** Open at the same time; a new one closes the oldest. */
const MOST_OPEN = 5;
const ICON = "/favicon.ico";

/** `Notification` where there is one. @returns {typeof Notification | undefined} */
const api = () => globalThis.Notification;

/**
 * Shows one, if the user has permitted it. `tag`: tabs and repeats show it once.
 * @param {Shown} shown @param {{icon?: string, tag?: string}} [options] @returns {Notification | null}
 */
export function showDesktop({ title, content }, { icon = ICON, tag } = {}) {
  const Made = api();
  if (Made?.permission !== "granted") return null;
  try {
    return new Made(title, { body: content ?? "", icon, ...(tag ? { tag } : {}) });
  } catch {
    return null; // Android has the class, and lets only service workers show them
  }
}

/**
 * @typedef {object} DesktopOptions
 * @property {"hidden" | "always" | "never"} [when] show what comes in: while the page is not shown (default), always, or only
 *   by `show()`
 * @property {string} [icon]
 * @property {(data: any) => void} [onClick] default: focus the page, and go to the notification's link
 * @property {DualcastClient} [client]
 */

/**
 * Desktop notifications of what comes in, once the user has permitted them. Nothing is asked before `request()`, which
 * belongs into the handler of a click: browsers refuse, and users resent, anything else.
 * @param {DesktopOptions} [options]
 */
export function useDesktopNotifications({ when = "hidden", icon, onClick, client: given } = {}) {
  const client = when === "never" ? null : useDualcast(given);
  const supported = ref(false);
  const permission = ref(/** @type {NotificationPermission} */ ("default"));
  /** @type {Set<Notification>} */
  const open = new Set();
  const look = () => {
    supported.value = !!api();
    permission.value = api()?.permission ?? "denied";
  };

  /** @param {any} data @returns {Notification | null} */
  const show = (data) => {
    const made = showDesktop(data, { icon, tag: data.id });
    if (!made) return null;
    open.add(made);
    for (const old of open) {
      if (open.size <= MOST_OPEN) break;
      open.delete(old);
      old.close();
    }
    made.onclose = () => open.delete(made);
    made.onclick = () => {
      made.close();
      window.focus();
      const link = safeLink(data.link);
      if (onClick) onClick(data);
      else if (link) location.assign(link);
    };
    return made;
  };

  whileAlive(() => {
    look();
    const off = client?.on("notification", ({ data }) => {
      if (when === "always" || globalThis.document?.visibilityState === "hidden") show(data);
    });
    return () => {
      off?.();
      for (const one of open) one.close();
      open.clear();
    };
  });

  return {
    supported: readonly(supported),
    permission: readonly(permission),
    show,
    /** Asks the user. Without a gesture nothing is asked. @returns {Promise<NotificationPermission>} */
    async request() {
      const gesture = globalThis.navigator?.userActivation?.isActive ?? true; // older browsers see to it themselves
      if (gesture && api()?.permission === "default") await api()?.requestPermission();
      look();
      return permission.value;
    },
  };
}
