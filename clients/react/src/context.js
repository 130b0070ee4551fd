import { OFF } from "@dualcast/client/stores";
import { createContext, useContext, useSyncExternalStore } from "react";

/** @typedef {import("@dualcast/client/stores").Hub} Hub */

/** What the provider gives. @type {import("react").Context<Hub | null>} */
export const DualcastContext = createContext(/** @type {Hub | null} */ (null));

/** The provider's. Throws where there is no `DualcastProvider` around. @returns {Hub} */
export function useHub() {
  const hub = useContext(DualcastContext);
  if (!hub) throw new Error("a hook of @dualcast/react is used outside of <DualcastProvider>");
  return hub;
}

const off = () => OFF;
const none = { subscribe: () => () => {}, get: off };

/** The connection; `OFF` without a provider. @returns {import("@dualcast/client/stores").Connection} */
export function useConnection() {
  const { subscribe, get } = useContext(DualcastContext)?.connection ?? none;
  return useSyncExternalStore(subscribe, get, off);
}
