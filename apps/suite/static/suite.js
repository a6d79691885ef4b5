() => {
  "use strict";
  // What the page does in the browser: keys, presentation, drawing over the picture, and sending
  // what happens inside our own tables to the tab's listener. No request leaves this page's server.

  const $ = (selector) => document.querySelector(selector);
  const send = (tab, event, data) => (window.studioChannels ?? {})[tab]?.(event, data);
  const tabOf = (element) => element.closest("[id^=tab_]")?.id.slice(4) ?? "segment";
  document.documentElement.lang = "en";

  // --- buttons and fields inside our HTML ---------------------------------------------------

  const payload = (element) => {
    const { do: name, focus, ...rest } = element.dataset;
    const data = { do: name, ...rest };
    if ("value" in element && element.tagName !== "BUTTON") data.value = element.value;
    if (name === "merge") {
      const boxes = document.querySelectorAll("[data-select]:checked");
      data.numbers = [...boxes].map((box) => Number(box.dataset.select));
    }
    return data;
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const data = payload(button);
    send(tabOf(button), { example: "select", anyway: "change" }[data.do] ?? "input", data);
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
    if (name && !focused.isConnected && document.activeElement === document.body)
      $(`[data-focus="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
  };

  // --- the status line ------------------------------------------------------------------------

  const tidy = () => {
    for (const line of document.querySelectorAll("[id$=_status]:not([aria-live])")) {
      line.setAttribute("role", "status");
      line.setAttribute("aria-live", "polite");
    }
    refocus();
  };
  new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true });
  tidy();

  // --- drawing over the picture ---------------------------------------------------------------

  const tool = () => $("#segment_tool input:checked")?.value;
  const picture = () => $("#segment_canvas [data-testid=image] img, #segment_canvas .image-frame img");
  // The same computation as the image component's own for clicks.
  const place = (img, event) => {
    const box = img.getBoundingClientRect();
    const scale = Math.min(box.width / img.naturalWidth, box.height / img.naturalHeight, 1);
    const left = box.left + (box.width - img.naturalWidth * scale) / 2;
    const top = box.top + (box.height - img.naturalHeight * scale) / 2;
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, Math.round(value)));
    return [
      clamp((event.clientX - left) / scale, img.naturalWidth),
      clamp((event.clientY - top) / scale, img.naturalHeight),
    ];
  };

  let stroke = null; // { img, tool, places, sheet, from: [clientX, clientY] }
  const sheetOver = (img) => {
    const sheet = document.createElement("canvas");
    const box = img.getBoundingClientRect();
    sheet.className = "studio-sheet";
    Object.assign(sheet.style, {
      left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px`,
    });
    sheet.width = Math.round(box.width);
    sheet.height = Math.round(box.height);
    document.body.append(sheet);
    return sheet;
  };
  const paint = (event) => {
    const pen = stroke.sheet.getContext("2d");
    const box = stroke.img.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    if (stroke.tool === "box") {
      const [x0, y0] = [stroke.from[0] - box.left, stroke.from[1] - box.top];
      pen.clearRect(0, 0, stroke.sheet.width, stroke.sheet.height);
      for (const [color, width] of [["#fff", 4], ["#0072b2", 2]]) {
        pen.strokeStyle = color;
        pen.lineWidth = width;
        pen.strokeRect(x0, y0, x - x0, y - y0);
      }
    } else {
      pen.strokeStyle = "rgba(0, 114, 178, .75)";
      pen.lineWidth = Math.max(6, box.width / 60);
      pen.lineCap = pen.lineJoin = "round";
      pen.lineTo(x, y);
      pen.stroke();
      pen.beginPath();
      pen.moveTo(x, y);
    }
  };

  document.addEventListener("pointerdown", (event) => {
    const img = picture();
    const inside = img && event.target.closest("#segment_canvas") && event.composedPath().includes(img);
    if (!inside || event.button !== 0 || !["box", "scribble"].includes(tool())) return;
    stroke = { img, tool: tool(), places: [place(img, event)], sheet: null,
               from: [event.clientX, event.clientY] };
    img.setPointerCapture?.(event.pointerId);
    if (event.pointerType !== "touch") event.preventDefault();
  }, true);
  document.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    const far = Math.hypot(event.clientX - stroke.from[0], event.clientY - stroke.from[1]) > 6;
    if (!stroke.sheet && !far) return;
    stroke.sheet ??= sheetOver(stroke.img);
    stroke.places.push(place(stroke.img, event));
    paint(event);
  }, true);
  let swallow = false; // the click that the browser makes of a finished stroke
  const finish = (event) => {
    if (!stroke) return;
    const { sheet, places, tool: name } = stroke;
    stroke = null;
    sheet?.remove();
    if (!sheet && name === "box") return; // a click: the image component sends it
    if (event.type === "pointerup") {
      swallow = sheet !== null;
      setTimeout(() => (swallow = false), 0);
      const step = Math.max(1, Math.ceil(places.length / 400));
      const path = places.filter((_, i) => i % step === 0 || i === places.length - 1);
      send("segment", "submit", { tool: name, path });
    }
  };
  document.addEventListener("pointerup", finish, true);
  document.addEventListener("pointercancel", finish, true);
  document.addEventListener("click", (event) => {
    const img = picture();
    if (!img || !event.composedPath().includes(img)) return;
    if (swallow || tool() === "scribble") {
      event.stopPropagation();
      swallow = false;
    } else ping(event);
  }, true);
  document.addEventListener("dragstart", (event) => {
    if (event.target === picture()) event.preventDefault();
  });

  // A click is seen at once, before the answer comes.
  const ping = (event) => {
    const dot = document.createElement("span");
    dot.className = `studio-ping ${tool()}`;
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

  document.addEventListener("keydown", (event) => {
    if (event.altKey || typing(event.target) || $("#studio_keys[open]")) return;
    const held = event.ctrlKey || event.metaKey;
    let key = event.key;
    if (held && key.toLowerCase() === "z") key = "U";
    else if (held && key === "Enter") key = "Ctrl+Enter";
    else if (held) return;
    if (key === "Escape") key = "Esc";
    if (key === "Backspace") key = "Delete";
    if (/^Digit[1-9]$/.test(event.code)) {
      const digit = event.code.slice(5);
      const example = document.body.classList.contains("present") && !event.shiftKey;
      if (press(example ? `#example_${digit}` : `#segment_reading_${digit}`)) event.preventDefault();
      return;
    }
    const row = byKey(key);
    if (row && press(row.dataset.target)) event.preventDefault();
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
