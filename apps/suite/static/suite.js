() => {
  "use strict";
  // What the page does in the browser: keys, presentation, drawing over the picture, and sending
  // what happens inside our own tables to the tab's listener. No request leaves this page's server.
  // A tab's panel is #tab_<name>, its parts are #<name>_<part>.

  const $ = (selector) => document.querySelector(selector);
  const PANEL = "[id^=tab_][role=tabpanel]";
  const front = () => [...document.querySelectorAll(PANEL)].find((panel) => panel.offsetParent);
  const tab = () => front()?.id.slice(4);
  const send = (name, event, data) => window.studioChannels?.[name]?.(event, data);
  const tabOf = (element) => element.closest(PANEL)?.id.slice(4);
  document.documentElement.lang = "en";

  // --- buttons and fields inside our HTML ---------------------------------------------------

  const payload = (element) => {
    const { do: name, focus, ...rest } = element.dataset;
    const data = { do: name, ...rest };
    if ("value" in element && element.tagName !== "BUTTON") data.value = element.value;
    if (name === "merge") {
      const boxes = element.closest(PANEL).querySelectorAll("[data-select]:checked");
      data.numbers = [...boxes].map((box) => Number(box.dataset.select));
    }
    return data;
  };

  const EVENTS = { // of the channel; all others go by "input"
    example: "select", anyway: "change", "remove-word": "submit", "clear-words": "submit",
    "reset-words": "submit", "words-back": "submit", ask: "submit", peek: "change",
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const data = payload(button);
    send(tabOf(button), EVENTS[data.do] ?? "input", data);
  });
  document.addEventListener("change", (event) => {
    const field = event.target.closest("input[data-do], select[data-do]");
    if (field) send(tabOf(field), "input", payload(field));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches?.("input[data-do]")) event.target.blur();
  });

  // Our tables are written anew after each change: keep the place of whoever works in them.
  // Only of a field that is gone: while a field is being left, nothing has the focus either.
  let focused = null;
  document.addEventListener("focusin", (event) => (focused = event.target));
  const refocus = () => {
    const name = focused?.dataset?.focus;
    if (!name || focused.isConnected || document.activeElement !== document.body) return;
    const again = front()?.querySelector(`[data-focus="${CSS.escape(name)}"]`);
    (again ?? wordField(focused.dataset.else))?.focus({ preventScroll: true });
  };

  // --- lists of words: chips, and a field whose lines become chips ------------------------------

  const wordField = (name) => name && front()?.querySelector(`textarea[data-words="${name}"]`);
  const lastChip = (name) => [...document.querySelectorAll(`[data-chips="${name}"] .word button`)].pop();
  const addWords = (field) => {
    if (!field.value.trim()) return;
    send(tabOf(field), "submit", { do: "add-words", list: field.dataset.words, value: field.value });
    field.value = "";
  };
  const isWordField = (element) => element.matches?.("textarea[data-words]");

  document.addEventListener("keydown", (event) => {
    const field = event.target;
    if (!isWordField(field) || event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      addWords(field);
      if (event.ctrlKey || event.metaKey) press(`#${tab()}_run`);
    } else if (event.key === "Backspace" && !field.value) lastChip(field.dataset.words)?.focus();
    else if (event.key === "Escape") press(`#${tab()}_cancel`);
  });
  document.addEventListener("paste", (event) => {
    const field = event.target;
    if (isWordField(field) && /[\r\n]/.test(event.clipboardData?.getData("text").trim() ?? ""))
      setTimeout(() => addWords(field));
  });
  // What was typed counts without Enter too, once the field is left; not while the page itself is.
  document.addEventListener("focusout", (event) => {
    if (isWordField(event.target) && document.hasFocus()) addWords(event.target);
  });
  document.addEventListener("click", (event) => {
    const name = event.target.closest("[data-add]")?.dataset.add;
    if (name) {
      addWords(wordField(name));
      wordField(name).focus();
    } else if (event.target.matches(".word-box, .word-chips, .words"))
      event.target.closest(".word-box")?.querySelector("textarea")?.focus();
  });

  // Lines that the server refused go back into their field, each refusal once.
  const given = new Set();
  const giveBack = () => {
    for (const mark of document.querySelectorAll("[data-back]")) {
      const { back, list, text } = mark.dataset;
      const field = document.querySelector(`textarea[data-words="${list}"]`);
      if (given.has(back) || !field) continue;
      given.add(back);
      field.value = [text, field.value].filter(Boolean).join("\n");
    }
  };

  // --- a chat: phrases, and the place in the conversation ----------------------------------------

  const PEEK_MS = 120; // a pointer that only passes asks for nothing
  let peekTimer = null, peeked = ""; // the phrase that the server shows alone, as "turn:numbers"
  const peek = (phrase) => {
    clearTimeout(peekTimer);
    const { turn = "", numbers = "" } = phrase?.dataset ?? {};
    const wanted = numbers && `${turn}:${numbers}`;
    if (wanted === peeked) return;
    peekTimer = setTimeout(() => {
      peeked = wanted;
      send("chat", "change", { do: "peek", turn, numbers });
    }, PEEK_MS);
  };
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") peek(event.target.closest?.(".phrase"));
  });
  document.addEventListener("click", (event) => { // it ends a peek on the server as well
    if (!event.target.closest("#chat_side [data-do]")) return;
    clearTimeout(peekTimer);
    peeked = "";
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || tab() !== "chat" || $("#studio_keys[open]")) return;
    if (typing(event.target)) press("#chat_cancel");
    else if ($("#chat_cancel")?.disabled && $("#chat_side .phrase[aria-pressed=true]"))
      send("chat", "input", { do: "all" });
  });

  // It stays at its end while it grows, unless the visitor has scrolled back.
  let atEnd = true, lastTop = 0;
  document.addEventListener("scroll", ({ target }) => {
    if (target.id !== "chat_scroll") return;
    if (target.scrollTop < lastTop) atEnd = false;
    if (target.scrollHeight - target.scrollTop - target.clientHeight < 40) atEnd = true;
    lastTop = target.scrollTop;
  }, true);
  const follow = () => {
    const talk = $("#chat_scroll");
    if (!talk) return;
    if ($("#chat_live .asked:not([data-seen])")) atEnd = true;
    for (const one of document.querySelectorAll("#chat_live .asked")) one.dataset.seen = "";
    if (atEnd) talk.scrollTop = talk.scrollHeight;
    if (talk.role === "log") return;
    talk.role = "log";
    talk.ariaLabel = "Conversation";
    talk.tabIndex = 0; // so that it scrolls by keyboard
  };

  // --- trainings: remembered by this browser, and by the page's address -----------------------------

  const KEPT = "studio-trainings", MOST_KEPT = 50;
  const asked = new URLSearchParams(location.search).get("training") ?? "";
  const kept = () => {
    try {
      const ids = JSON.parse(localStorage.getItem(KEPT));
      return Array.isArray(ids) ? ids : [];
    } catch { return []; } // no storage in this window: the address has to do
  };
  const keep = (id) => {
    const ids = [...kept().filter((one) => one !== id), id].slice(-MOST_KEPT);
    try { localStorage.setItem(KEPT, JSON.stringify(ids)); } catch { /* see above */ }
  };
  const address = (id) => {
    const url = new URL(location);
    if (id) url.searchParams.set("training", id);
    else url.searchParams.delete("training");
    history.replaceState(history.state, "", url);
  };
  let recalled = false, opened = false, handing = false, followed = "";
  const followTraining = () => {
    const button = $("#tab_dreambooth-button");
    if (asked && !opened && button) {
      opened = true;
      button.click();
    }
    if (!window.studioChannels?.dreambooth) return;
    if (!recalled) {
      recalled = true;
      send("dreambooth", "change", { do: "recall", training: asked, known: kept() });
    }
    if (handing) {
      handing = false;
      send("dreambooth", "change", { do: "from-personalize" });
    }
    const id = $("[data-training]")?.dataset.training ?? followed;
    if (id === followed) return;
    followed = id;
    address(id);
    if (id) keep(id);
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("#personalize_dreambooth")) {
      handing = true;
      press("#tab_dreambooth-button");
      setTimeout(followTraining);
    }
    const chip = event.target.closest("[data-fill]");
    const field = chip && $(`#${chip.dataset.fill} textarea`);
    if (!field) return;
    field.value = chip.dataset.text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  });

  // --- steps played one after the other -----------------------------------------------------------

  const STEP_MS = 1600;
  let playing = null;
  const stop = () => {
    clearInterval(playing);
    playing = null;
    showPlaying();
  };
  const showPlaying = () => {
    const [on, text] = [String(playing !== null), playing === null ? "Play" : "Pause"];
    for (const button of document.querySelectorAll("[data-play]")) {
      if (button.textContent === text && button.getAttribute("aria-pressed") === on) continue;
      button.textContent = text;
      button.setAttribute("aria-pressed", on);
    }
  };
  const showChosen = () => {
    const card = $(".step-card.chosen:not([data-seen])");
    if (!card) return;
    card.dataset.seen = "";
    card.parentElement.scrollLeft = card.offsetLeft - card.parentElement.offsetLeft - 40;
  };
  const play = (next) => {
    if (playing !== null) return stop();
    if ($(`#${next}`)?.disabled) front()?.querySelector('[data-do="step"][data-index="0"]')?.click();
    playing = setInterval(() => {
      const button = $(`#${next}`);
      if (!button?.offsetParent) stop();
      else if (!button.disabled) button.click();
      else stop();
    }, STEP_MS);
    showPlaying();
  };
  document.addEventListener("click", (event) => {
    const next = event.target.closest("[data-play]")?.dataset.play;
    if (next) play(next);
    else if (event.isTrusted && event.target.closest('[data-do="step"]')) stop();
  });

  // --- the status line ------------------------------------------------------------------------

  const tidy = () => {
    for (const line of document.querySelectorAll("[id$=_status]:not([aria-live])")) {
      line.setAttribute("role", "status");
      line.setAttribute("aria-live", "polite");
    }
    giveBack();
    showPlaying();
    showChosen();
    follow();
    followTraining();
    refocus();
  };
  new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true });
  tidy();

  // --- drawing over the picture ---------------------------------------------------------------

  const BRUSHES = { paint: "#0072b2", erase: "#fff" }; // broad, for the mask itself
  const isBrush = (name) => name in BRUSHES;
  const chosen = (part) => $(`#${tab()}_${part} input:checked`)?.value;
  const picture = (part) => $(`#${tab()}_${part} :is([data-testid=image], .image-frame) img`);

  // Where a picture is seen, by the image component's own computation for clicks.
  const viewOf = (img) => {
    const box = img.getBoundingClientRect();
    const [width, height] = [img.naturalWidth, img.naturalHeight];
    const scale = Math.min(box.width / width, box.height / height, 1);
    const left = box.left + (box.width - width * scale) / 2;
    const top = box.top + (box.height - height * scale) / 2;
    return { box, width, height, scale, left, top };
  };
  const place = (view, event) => {
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, Math.round(value)));
    return [
      clamp((event.clientX - view.left) / view.scale, view.width),
      clamp((event.clientY - view.top) / view.scale, view.height),
    ];
  };

  let stroke = null; // { tab, tool, view, places, sheet, from: [clientX, clientY] }
  const spread = () => {
    const { tool, view: { box }, from } = stroke;
    const sheet = document.createElement("canvas");
    sheet.className = `studio-sheet ${tool}`;
    Object.assign(sheet.style, {
      left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px`,
    });
    sheet.width = Math.round(box.width);
    sheet.height = Math.round(box.height);
    document.body.append(sheet);
    const pen = sheet.getContext("2d");
    pen.translate(-box.left, -box.top);
    pen.lineCap = pen.lineJoin = "round";
    pen.moveTo(...from);
    return sheet;
  };
  const draw = (x, y) => {
    const { tool, view, from, sheet } = stroke;
    const pen = sheet.getContext("2d");
    if (tool === "box") {
      pen.clearRect(view.box.left, view.box.top, view.box.width, view.box.height);
      for (const [color, width] of [["#fff", 4], ["#0072b2", 2]]) {
        pen.strokeStyle = color;
        pen.lineWidth = width;
        pen.strokeRect(...from, x - from[0], y - from[1]);
      }
    } else {
      const longSide = Math.max(view.width, view.height) * view.scale;
      pen.strokeStyle = BRUSHES[tool] ?? "rgba(0, 114, 178, .75)";
      pen.lineWidth = isBrush(tool) ? longSide / 30 : Math.max(6, view.box.width / 60);
      pen.lineTo(x, y);
      pen.stroke();
      pen.beginPath();
      pen.moveTo(x, y);
    }
  };

  document.addEventListener("pointerdown", (event) => {
    const [img, tool] = [picture("canvas"), chosen("tool")];
    if (!img || !event.composedPath().includes(img) || event.button !== 0) return;
    if (!["box", "scribble"].includes(tool) && !isBrush(tool)) return;
    const view = viewOf(img);
    const from = [event.clientX, event.clientY];
    stroke = { tab: tab(), tool, view, places: [place(view, event)], sheet: null, from };
    if (isBrush(tool)) {
      stroke.sheet = spread();
      draw(...from);
    }
    img.setPointerCapture?.(event.pointerId);
    if (event.pointerType !== "touch") event.preventDefault();
  }, true);
  document.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    const far = Math.hypot(event.clientX - stroke.from[0], event.clientY - stroke.from[1]) > 6;
    if (!stroke.sheet && !far) return;
    stroke.sheet ??= spread();
    stroke.places.push(place(stroke.view, event));
    draw(event.clientX, event.clientY);
  }, true);
  // What a brush drew stays until the picture that has it is there.
  const liftLater = (sheet) => {
    const lift = () => sheet.remove();
    for (const type of ["load", "scroll"])
      document.addEventListener(type, lift, { capture: true, once: true });
    setTimeout(lift, 1500);
  };
  let swallow = false; // the click that the browser makes of a finished stroke
  const finish = (event) => {
    if (!stroke) return;
    const { sheet, places, tool, tab: name } = stroke;
    stroke = null;
    const isDone = event.type === "pointerup";
    if (sheet && isDone && isBrush(tool)) liftLater(sheet);
    else sheet?.remove();
    if (!sheet && tool === "box") return; // a click: the image component sends it
    if (isDone) {
      swallow = sheet !== null;
      setTimeout(() => (swallow = false), 0);
      const step = Math.max(1, Math.ceil(places.length / 400));
      const path = places.filter((_, i) => i % step === 0 || i === places.length - 1);
      send(name, "submit", { tool, path });
    }
  };
  document.addEventListener("pointerup", finish, true);
  document.addEventListener("pointercancel", finish, true);
  document.addEventListener("click", (event) => {
    const isIn = (part) => event.composedPath().includes(picture(part));
    if (isIn("result")) ping(event, chosen("correct"));
    if (!isIn("canvas")) return;
    const tool = chosen("tool");
    if (swallow || tool === "scribble" || isBrush(tool)) {
      event.stopPropagation();
      swallow = false;
    } else if (tool) ping(event, tool);
  }, true);
  document.addEventListener("dragstart", (event) => {
    if (event.target === picture("canvas")) event.preventDefault();
  });

  // A click is seen at once, before the answer comes.
  const ping = (event, kind) => {
    const dot = document.createElement("span");
    dot.className = `studio-ping ${kind}`;
    Object.assign(dot.style, { left: `${event.clientX}px`, top: `${event.clientY}px` });
    document.body.append(dot);
    setTimeout(() => dot.remove(), 450);
  };

  // --- keys -----------------------------------------------------------------------------------

  const press = (selector) => {
    const target = $(selector);
    if (!target || target.disabled) return false;
    target.click();
    return true;
  };
  const byKey = (key) =>
    [...document.querySelectorAll("#studio_keys [data-key]")].find(
      (row) => row.dataset.key.toLowerCase() === key.toLowerCase());
  const typing = (target) =>
    target.closest?.("input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select, [contenteditable=true]");
  const steers = (target) => // the arrows are its own
    target.closest?.("input, [role=tab], [role=listbox], [role=slider], .preview, video, audio");
  const NAMES = { Escape: "Esc", Backspace: "Delete", ArrowRight: "→", ArrowLeft: "←" };

  document.addEventListener("keydown", (event) => {
    if (event.altKey || typing(event.target) || $("#studio_keys[open]")) return;
    const held = event.ctrlKey || event.metaKey;
    let key = NAMES[event.key] ?? event.key;
    if (held && key.toLowerCase() === "z") key = "U";
    else if (held && key === "Enter") key = "Ctrl+Enter";
    else if (held) return;
    if (/^Arrow/.test(event.key) && steers(event.target)) return;
    let target = null;
    if (/^Digit[1-9]$/.test(event.code)) {
      key = event.code.slice(5);
      if (document.body.classList.contains("present") && !event.shiftKey)
        target = `#tab_{tab} [id$=example_${key}]`;
    }
    target ??= byKey(key)?.dataset.target;
    if (target && press(target.replace("{tab}", tab()))) event.preventDefault();
  });

  // --- dark, presentation, list of keys --------------------------------------------------------

  const present = (on) => {
    document.body.classList.toggle("present", on);
    $("#studio_present")?.setAttribute("aria-pressed", String(on));
  };
  document.addEventListener("click", (event) => {
    const id = event.target.closest("button")?.id;
    if (id === "studio_theme") document.body.classList.toggle("dark");
    if (id === "studio_present") present(!document.body.classList.contains("present"));
    if (id === "studio_keys_button") $("#studio_keys").showModal();
  });
  if (new URLSearchParams(location.search).get("present") === "1") present(true);
}
