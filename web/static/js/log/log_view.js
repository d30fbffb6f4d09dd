// @ts-check
// The files of a run, one at a time: each opens at its end, or at the line of the address, and its
// end stays in sight as it grows, until one scrolls up.

import { addresses, Refused } from "../api.js";
import { h, setAttribute, setText } from "../dom.js";
import { bytesText, counted, countText } from "../figures.js";
import { onLines } from "../live.js";
import { FileTabs } from "./file_tabs.js";
import { Flow } from "./flow.js";
import { lineMaker } from "./line_row.js";
import { Rows } from "./rows.js";
import { Search } from "./search.js";
import { Source } from "./source.js";
import { finder } from "./text.js";
import { makeTools, setToggle } from "./tools.js";
import { transcriptMaker } from "./transcript.js";

const isMarkdown = (/** @type {string} */ name) => name.endsWith(".md");
// What these print is no Markdown.
const PLAIN_AGENTS = ["shell", "command"];
/** Kept from run to run. @type {{readable: boolean | null, wrap: boolean, codes: boolean}} */
const wishes = { readable: null, wrap: false, codes: false };

export class LogView {
  /** @param {string} run @param {(query: Record<string, string | number>) => string} hrefOf */
  constructor(run, hrefOf) {
    this.run = run;
    this.hrefOf = hrefOf;
    this.name = "";
    this.first = ""; // the file that is shown where the address names none
    this.isLive = this.isPlain = false;
    this.words = "";
    this.seen = -1; // lines that there were when its end was last in sight, or when it was opened
    this.isGrowing = this.isGrowthDue = false;
    this.hasFailed = false; // the last thing that was wanted
    /** @type {Source | null} */
    this.source = null;
    /** @type {import("./rows.js").Shower | null} */
    this.shower = null;
    /** @type {Search | null} */
    this.search = null;
    /** @type {import("./line_row.js").Look} */
    this.look = { withCodes: wishes.codes, wanted: null, marked: -1, hrefOf: (line) => hrefOf({ file: this.name, line }) };
    this.tabs = new FileTabs(hrefOf);
    this.tools = makeTools({
      find: (isBackward) => this.find(this.words ? { q: this.words } : null, isBackward),
      words: (words) => this.setWords(words),
      error: (isBackward) => this.find({ kind: "error" }, isBackward),
      line: (line) => (location.hash = this.hrefOf({ file: this.name, line })),
      beginning: () => this.act((shower) => shower.showLine(0)),
      end: () => this.act((shower) => shower.showEnd()),
      toggle: (name) => this.toggle(name),
    });
    this.state = h("p", { class: "log-state small quiet" });
    this.news = h("button", { type: "button", class: "first log-news", hidden: true, onclick: () => this.act((shower) => shower.showEnd()) });
    this.problem = h("p", { class: "none log-empty", hidden: true });
    this.place = h("div", { class: "log-place" }, this.problem, this.news);
    this.place.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h("section", { class: "log", "aria-label": "Files" }, h("h2", { class: "away" }, "Files"), this.tabs.element, this.tools.element, this.place, this.state);
    this.stopLines = onLines((lines) => lines[run] && this.takeSizes(lines[run].sizes));
  }

  get keys() {
    return /** @type {import("../keys.js").KeyMap} */ ({
      e: ["next error in the file", () => this.find({ kind: "error" }, false)],
      E: ["error before", () => this.find({ kind: "error" }, true)],
    });
  }

  // ---- which file

  /** @param {import("./file_tabs.js").File[]} files those that there are now @param {boolean} isLive @param {string} agent */
  setFiles(files, isLive, agent) {
    this.isLive = isLive;
    this.isPlain = PLAIN_AGENTS.includes(agent);
    this.tabs.set(files);
    this.tabs.show(this.name);
    const size = this.tabs.sizeOf(this.name);
    if (size === undefined || !this.source) return;
    // At the end of a run a last line without its end comes to the others.
    if (size !== this.source.end || this.source.isLive !== isLive || this.hasFailed) this.grow();
  }

  /** @param {URLSearchParams} query file and line */
  async show(query) {
    const name = query.get("file") || (this.first ||= this.tabs.proposed(this.isLive));
    const line = Number(query.get("line")) || 0;
    this.look.marked = line - 1;
    if (!name || (name === this.name && !line)) return this.shower?.redraw();
    if (name !== this.name) this.openFile(name);
    await this.act((shower) => (line ? this.goTo(shower, line - 1) : shower.showEnd()));
  }

  /** @param {string} name */
  openFile(name) {
    this.closeFile();
    this.name = name;
    this.source = new Source(this.run, name);
    this.search = new Search(this.source);
    setAttribute(this.tools.raw, "href", addresses.raw(this.run, name));
    setText(this.tools.state, "");
    this.openShower();
    this.tabs.show(name);
  }

  get isReadable() {
    return wishes.readable ?? (this.name === "prompt.md" || !this.isPlain);
  }

  openShower() {
    if (!this.source) return;
    this.shower?.close();
    this.shower?.element.remove();
    const onMove = () => this.onMove();
    const isReadable = isMarkdown(this.name) && this.isReadable;
    if (isReadable) this.shower = new Flow(this.source, transcriptMaker(this.look), "log-readable", onMove);
    else if (wishes.wrap) this.shower = new Flow(this.source, lineMaker(this.look), "log-wrapped", onMove);
    else this.shower = new Rows(this.source, this.look, onMove);
    this.place.prepend(this.shower.element);
    setToggle(this.tools.toggles.readable, isReadable, isMarkdown(this.name));
    setToggle(this.tools.toggles.wrap, wishes.wrap, !isReadable);
    setToggle(this.tools.toggles.codes, wishes.codes);
  }

  /** Does it, and says what the server has refused.
   * @param {(shower: import("./rows.js").Shower) => Promise<void> | undefined} wish */
  async act(wish) {
    const { shower, source } = this;
    if (!shower || !source) return;
    try {
      await wish(shower);
      if (source !== this.source) return;
      this.hasFailed = false;
      this.showEmpty("");
    } catch (error) {
      if (source !== this.source || (error instanceof DOMException && error.name === "AbortError")) return;
      if (!(error instanceof Refused || error instanceof TypeError)) throw error;
      this.hasFailed = true;
      setText(this.tools.state, ""); // it searches no more
      this.showEmpty(error instanceof Refused ? `${error.message}.` : "The server does not answer.");
    }
  }

  /** @param {string} problem */
  showEmpty(problem) {
    const isEmpty = !this.source?.lineCount;
    const words = this.isLive ? "Nothing yet. What is written appears here." : "The file is empty.";
    setText(this.problem, problem || (isEmpty ? words : ""));
    this.problem.hidden = !problem && !isEmpty;
  }

  // ---- as it grows

  /** @param {Record<string, number>} sizes */
  takeSizes(sizes) {
    this.tabs.takeSizes(sizes);
    this.tabs.show(this.name);
    const size = sizes[this.name]; // of one that runs do not write to, none is told
    if (this.source && size !== undefined && size !== this.source.size) this.grow();
  }

  /** One look at a time, and one more for what has come meanwhile. */
  async grow() {
    this.isGrowthDue = true;
    if (this.isGrowing) return;
    this.isGrowing = true;
    try {
      while (this.isGrowthDue) {
        this.isGrowthDue = false;
        await this.act((shower) => shower.grow());
        this.onMove();
      }
    } finally {
      this.isGrowing = false;
    }
  }

  onMove() {
    const { source, shower } = this;
    if (!source || !shower) return;
    const isAtEnd = shower.isAtEnd();
    if (isAtEnd || this.seen < 0) this.seen = source.lineCount || -1;
    const fresh = this.seen < 0 ? 0 : source.lineCount - this.seen;
    this.news.hidden = fresh <= 0;
    setText(this.news, `${counted(fresh, "new line")} ▾`);
    const follows = this.isLive ? (isAtEnd ? " · following" : " · paused, as it is scrolled up") : "";
    setText(this.state, source.lineCount
      ? `Line ${countText(Math.min(source.lineCount, shower.topLine() + 1))} of ${countText(source.lineCount)} · ${bytesText(source.size)}${follows}` : "");
  }

  // ---- search, lines, how it is shown

  /** @param {string} words */
  setWords(words) {
    this.words = words.trim() && words;
    this.look.wanted = finder(this.words);
    this.search?.reset();
    setText(this.tools.state, "");
    this.shower?.redraw();
  }

  /** @param {Record<string, string> | null} what @param {boolean} isBackward */
  async find(what, isBackward) {
    const { search } = this;
    if (!search || !what) return;
    setText(this.tools.state, "searching");
    await this.act(async (shower) => {
      const { found, isAround } = await search.next(what, isBackward, this.look.marked >= 0 ? this.look.marked : shower.topLine());
      const noun = what.kind ? "error" : "match";
      if (!found) return setText(this.tools.state, `no ${noun}`);
      setText(this.tools.state, `line ${countText(found.line + 1)}${isAround ? ", from the other end" : ""}`);
      history.replaceState(null, "", this.hrefOf({ file: this.name, line: found.line + 1 }));
      await this.goTo(shower, found.line);
    });
  }

  /** @param {import("./rows.js").Shower} shower @param {number} line from 0 */
  async goTo(shower, line) {
    this.look.marked = line;
    await shower.showLine(line);
    shower.redraw();
  }

  /** @param {"readable" | "wrap" | "codes"} name */
  async toggle(name) {
    const line = this.shower?.isAtEnd() ? -1 : this.shower?.topLine() ?? -1;
    wishes[name] = name === "readable" ? !this.isReadable : !wishes[name];
    this.look.withCodes = wishes.codes;
    this.openShower();
    await this.act((shower) => (line < 0 ? shower.showEnd() : shower.showLine(line)));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.target !== this.shower?.element || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    this.act((shower) => (event.key === "Home" ? shower.showLine(0) : shower.showEnd()));
  }

  closeFile() {
    this.search?.close();
    this.source?.close();
    this.shower?.close();
    this.shower?.element.remove();
    this.source = this.shower = this.search = null;
    this.seen = -1;
    this.hasFailed = false;
  }

  close() {
    this.stopLines();
    this.closeFile();
  }
}
