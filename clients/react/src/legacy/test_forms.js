import { createElement as h, useId, useState } from "react";

/** @typedef {import("react").ReactNode} ReactNode */

/**
 * A labelled input.
 * @param {{label: string, value: string, onChange: (value: string) => void} & Record<string, any>} props
 */
export function Field({ label, value, onChange, ...more }) {
  const id = useId();
  return h(
    "p",
    { className: "dc-test-field" },
    h("label", { htmlFor: id }, label),
    h("input", { id, value, maxLength: 8_000, autoComplete: "off", spellCheck: false, ...more, onChange: (/** @type {any} */ event) => onChange(event.target.value) }),
  );
}

/** A form that calls instead of being sent. @param {{label: string, onSubmit: () => void, children?: ReactNode}} props */
export function Form({ label, onSubmit, children }) {
  const submit = (/** @type {import("react").FormEvent} */ event) => {
    event.preventDefault();
    onSubmit();
  };
  return h("form", { className: "dc-test-section", "aria-label": label, onSubmit: submit }, children);
}

/**
 * A frame to send: an example, or one's own.
 * @param {{examples: Readonly<Record<string, unknown>>, onSend: (frame: unknown) => boolean}} props `onSend` gets an
 *   object, or text that is none; false: it was not taken
 */
export function SendForm({ examples, onSend }) {
  const id = useId();
  const names = Object.keys(examples);
  const textOf = (/** @type {string} */ name) => (typeof examples[name] === "string" ? String(examples[name]) : JSON.stringify(examples[name]));
  const [text, setText] = useState(textOf(names[0]));
  const [refused, setRefused] = useState("");
  const send = () => {
    let frame = /** @type {unknown} */ (text);
    try {
      frame = JSON.parse(text);
    } catch {
      // Text goes as it is: what the server says to that is part of the test.
    }
    setRefused(onSend(frame) ? "" : "Not sent: there is no connection, or it is too large.");
  };
  return h(
    Form,
    { label: "Send", onSubmit: send },
    h("label", { htmlFor: id + "example" }, "Example"),
    h(
      "select",
      { id: id + "example", onChange: (/** @type {any} */ event) => setText(textOf(event.target.value)) },
      names.map((name) => h("option", { key: name }, name)),
    ),
    h("label", { htmlFor: id }, "Frame to send"),
    h("textarea", { id, rows: 3, dir: "ltr", spellCheck: false, value: text, onChange: (/** @type {any} */ event) => setText(event.target.value) }),
    h("button", null, "Send"),
    h("p", { role: "alert" }, refused),
  );
}

/** @param {{facts: Readonly<Record<string, ReactNode>>}} props */
export const Facts = ({ facts }) =>
  h(
    "dl",
    { className: "dc-test-facts" },
    Object.entries(facts).map(([name, value]) => h("div", { key: name, "data-fact": name }, h("dt", null, name), h("dd", null, value ?? "–"))),
  );
