// Who is signed in: a token in this tab's session storage, and what it may do.

const KEY = "dualcast.console";

/** @returns {string} "" : nobody */
export function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} token "" : forget it */
export function store(token) {
  try {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Then a reload asks again.
  }
}

/** What a token says of itself, unverified: to show it. The server decides. @param {string} token */
export function claims(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const found = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
    const roles = [found.role, found.roles].flat().filter((one) => typeof one === "string");
    return { user: String(found.sub ?? ""), tenant: String(found.tenant ?? ""), roles, exp: Number(found.exp) || 0 };
  } catch {
    return { user: "", tenant: "", roles: [], exp: 0 };
  }
}

/**
 * What the server lets its holder do: `operator` (every tenant), `admin` (the own one), `user`. Throws Refusal for
 * a token that is not accepted.
 * @param {import("./console-api.js").Api} api @param {string[]} roles
 */
export async function roleOf(api, roles) {
  try {
    await api.get("/v1/tenants?limit=1");
    return "operator";
  } catch (error) {
    if (error.code === "operator-only") return roles.includes("admin") ? "admin" : "user";
    if (error.code === "admin-only") return "user";
    throw error;
  }
}
