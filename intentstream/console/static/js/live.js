// A stream of server-sent events that comes back by itself, and the word at the top that says how it is.

const state = document.getElementById("connection");

function tell(how, words) {
  state.dataset.state = how;
  state.textContent = words;
}

/**
 * Listens to `/api/<path>`; `heard` maps names of events to functions of their value.
 * While the page is hidden nothing is asked: a browser has few connections to one server.
 * Returns a function that ends it.
 */
export function live(path, heard) {
  let source = null;
  let again = null;
  let ended = false;

  function open() {
    close();
    if (ended || document.hidden) return;
    source = new EventSource(`/api/${path}`);
    source.onopen = () => tell("live", "live");
    source.onerror = () => {
      tell("lost", "disconnected, trying again");
      // After an answer that is an error, the browser itself gives up.
      if (source && source.readyState === EventSource.CLOSED) {
        clearTimeout(again);
        again = setTimeout(open, 2000);
      }
    };
    for (const [name, hear] of Object.entries(heard)) {
      source.addEventListener(name, (event) => hear(JSON.parse(event.data)));
    }
  }

  function close() {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  }

  function visibility() {
    if (document.hidden) close();
    else open();
  }

  document.addEventListener("visibilitychange", visibility);
  tell("waiting", "connecting");
  open();
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", visibility);
    close();
    tell("idle", "");
  };
}

/** What `/api/<path>` answers. An answer that is no success is thrown, with the reason it gives. */
export async function ask(path, options = {}) {
  const answer = await fetch(`/api/${path}`, { headers: { Accept: "application/json", ...options.headers }, ...options });
  const value = await answer.json().catch(() => null);
  if (!answer.ok) {
    const detail = value && typeof value.detail === "string" ? value.detail : `the console answered ${answer.status}`;
    throw Object.assign(new Error(detail), { status: answer.status });
  }
  return value;
}
