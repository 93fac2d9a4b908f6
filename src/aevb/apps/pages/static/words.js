// What the page says, in English and in Korean. {0}, {1}: what is filled in.

const ENGLISH = {
  explorer: "Latent space explorer",
  hint: "Move over the map: the model draws what each place means",
  hintTouch: "Drag over the map: the model draws what each place means",
  map: "Map of the latent space. Arrow keys move, plus and minus zoom, Enter picks a point.",
  colourBy: "Colour by", view: "Axes", layer: "Layer", class: "Class", anyClass: "each point's own",
  look: "Look", lasso: "Lasso", walk: "Walk", backdrop: "Decoded backdrop",
  zoomIn: "Zoom in", zoomOut: "Zoom out", fit: "Show all",
  theme: "Dark or light", language: "한국어", here: "The model's idea of this place", decoded: "Decoded",
  code: "Code z", sliders: "Sliders", point: "Point", draw: "Draw", read: "New row", selection: "Selection", numbers: "Numbers",
  training: "Training", compare: "Compare",
  reset: "Reset", sample: "Random sample", temperature: "Temperature", allLatents: "Show all {0} latents",
  klOf: "{0}: KL {1} nats, how much the model uses it",
  slidersHelp: "Each slider is one latent, the most used first. Behind it: how the prior spreads.",
  pointHelp: "Point at a dot to see the data behind it. Click to keep it here.",
  original: "Original", reconstruction: "Reconstruction", surprise: "Surprise", nearest: "Nearest in code",
  label: "Label", cluster: "Cluster", part: "Split", row: "Row", elbo: "ELBO", recon: "Reconstruction term", kl: "KL", nats: "{0} nats",
  drawHelp: "Draw here, or drop a picture. The model encodes it and puts it on the map.",
  readHelp: "Fill in what you know. The model fills in the rest.",
  clear: "Clear", drop: "Drop a picture here, or choose a file", dropRow: "Drop a .csv row here, or choose a file", choose: "Choose a file",
  odder: "Odder than {0} % of the held-out data", logpx: "log p(x)", ellipse: "The ellipse holds 90 % of q(z|x).",
  walkHelp: "Click two or more places on the map. The path between them plays.",
  linear: "Straight", spherical: "Spherical", play: "Play", stop: "Stop", savePng: "Save PNG", saveGif: "Save GIF", forget: "Start again",
  lassoHelp: "Choose Lasso, then draw around points: what do they share?",
  chosen: "{0} points chosen", meanDecode: "Decoded mean code", exportCsv: "Export CSV",
  differ: "What sets them apart", here_: "chosen", rest: "rest", keepA: "Keep as A", keepB: "Keep as B",
  arithmetic: "Arithmetic", arithmeticHelp: "Keep two selections. The difference of their mean codes is added to the place you look at.",
  addBA: "Here + (B − A)", kept: "A: {0} points · B: {1} points",
  column: "Column", value: "Value", missing: "missing", interval: "90 % interval", filled: "Filled", share: "{0} %",
  loading: "Encoding {0} of {1} points…", colouring: "Colouring {0} of {1}…", unknownColour: "not known",
  gone: "The server does not answer. Is `aevb explore` still running?",
  token: "This page needs the link that `aevb explore` printed: it holds a key.",
  evaluation: "Evaluation", noNumbers: "Not evaluated yet: aevb evaluate", run: "Run", recipe: "Recipe",
  stopTraining: "Stop and save", stopping: "Stopping…", ended: "The training has ended.", waiting: "Waiting for the first numbers…",
  curveElbo: "ELBO", curveRecon: "Reconstruction term", curveKl: "KL", samplesSeen: "training samples seen",
  saved: "Saved", copied: "Copied", pointerOver: "Under the pointer", other: "Other run",
  score: "Score", place: "Place on the map", fill: "Fill",
};

const KOREAN = {
  explorer: "잠재 공간 탐색기",
  hint: "지도 위로 움직여 보세요. 그 자리가 뜻하는 것을 모델이 그립니다",
  hintTouch: "지도 위를 끌어 보세요. 그 자리가 뜻하는 것을 모델이 그립니다",
  map: "잠재 공간의 지도. 화살표로 움직이고, 더하기와 빼기로 확대하며, 엔터로 점을 고릅니다.",
  colourBy: "색", view: "축", layer: "층", class: "분류", anyClass: "점마다 제 분류",
  look: "보기", lasso: "올가미", walk: "걷기", backdrop: "디코딩 배경",
  zoomIn: "확대", zoomOut: "축소", fit: "모두 보기",
  theme: "밝게 또는 어둡게", language: "English", here: "이 자리에 대한 모델의 생각", decoded: "디코딩",
  code: "코드 z", sliders: "슬라이더", point: "점", draw: "그리기", read: "새 행", selection: "선택", numbers: "수치",
  training: "학습", compare: "비교",
  reset: "처음으로", sample: "무작위 표본", temperature: "온도", allLatents: "잠재 변수 {0}개 모두 보기",
  klOf: "{0}: KL {1} nats, 모델이 이 변수를 쓰는 정도",
  slidersHelp: "슬라이더 하나가 잠재 변수 하나이며, 많이 쓰는 것부터입니다. 뒤의 그림은 사전 분포입니다.",
  pointHelp: "점을 가리키면 그 데이터를 보여 줍니다. 누르면 여기에 남습니다.",
  original: "원본", reconstruction: "복원", surprise: "놀라움", nearest: "코드가 가까운 것",
  label: "이름표", cluster: "군집", part: "데이터 부분", row: "행", elbo: "ELBO", recon: "복원 항", kl: "KL", nats: "{0} nats",
  drawHelp: "여기에 그리거나 그림을 놓으세요. 모델이 인코딩하여 지도에 놓습니다.",
  readHelp: "아는 값을 채우세요. 나머지는 모델이 채웁니다.",
  clear: "지우기", drop: "그림을 여기에 놓거나 파일을 고르세요", dropRow: ".csv 행을 여기에 놓거나 파일을 고르세요", choose: "파일 고르기",
  odder: "따로 둔 데이터의 {0} %보다 특이함", logpx: "log p(x)", ellipse: "타원은 q(z|x)의 90 %를 담습니다.",
  walkHelp: "지도에서 두 곳 이상을 누르세요. 그 사이의 길이 재생됩니다.",
  linear: "직선", spherical: "구면", play: "재생", stop: "멈춤", savePng: "PNG 저장", saveGif: "GIF 저장", forget: "다시 시작",
  lassoHelp: "올가미를 고르고 점들을 둘러 그리세요. 무엇이 같은지 보여 줍니다.",
  chosen: "점 {0}개 선택", meanDecode: "평균 코드의 디코딩", exportCsv: "CSV 저장",
  differ: "나머지와 다른 점", here_: "선택", rest: "나머지", keepA: "A로 두기", keepB: "B로 두기",
  arithmetic: "연산", arithmeticHelp: "두 선택을 담아 두세요. 평균 코드의 차이를 지금 보는 자리에 더합니다.",
  addBA: "여기 + (B − A)", kept: "A: 점 {0}개 · B: 점 {1}개",
  column: "열", value: "값", missing: "없음", interval: "90 % 구간", filled: "채움", share: "{0} %",
  loading: "점 {1}개 중 {0}개 인코딩…", colouring: "{1}개 중 {0}개 색칠…", unknownColour: "알 수 없음",
  gone: "서버가 답하지 않습니다. `aevb explore`가 아직 실행 중인가요?",
  token: "`aevb explore`가 출력한 링크가 필요합니다. 링크에 열쇠가 들어 있습니다.",
  evaluation: "평가", noNumbers: "아직 평가하지 않았습니다: aevb evaluate", run: "실행", recipe: "레시피",
  stopTraining: "멈추고 저장", stopping: "멈추는 중…", ended: "학습이 끝났습니다.", waiting: "첫 수치를 기다리는 중…",
  curveElbo: "ELBO", curveRecon: "복원 항", curveKl: "KL", samplesSeen: "학습한 표본 수",
  saved: "저장됨", copied: "복사됨", pointerOver: "포인터 아래", other: "다른 실행",
  score: "점수", place: "지도에 놓기", fill: "채우기",
};

/** The language of an address: ?lang=ko, or English. */
export function language(search = location.search) {
  return new URLSearchParams(search).get("lang") === "ko" ? "ko" : "en";
}

/** A function words(key, ...) of one language. */
export function speaker(code) {
  const dictionary = code === "ko" ? KOREAN : ENGLISH;
  return (key, ...values) => (dictionary[key] ?? key).replace(/\{(\d)\}/g, (_, i) => told(values[i]));
}

function told(value) {
  if (value === null || value === undefined) return "—";
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(2) : String(value);
}

export const DICTIONARIES = { en: ENGLISH, ko: KOREAN };
