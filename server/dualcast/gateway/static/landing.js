// A token in this page's address (#token=…) goes on to the pages that take one.

const TAKE = ["/demo", "/websocket-test"];

function handOn() {
  for (const link of document.links) if (TAKE.includes(link.pathname)) link.hash = location.hash;
}

addEventListener("hashchange", handOn);
handOn();
