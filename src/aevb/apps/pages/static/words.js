// What the page says, in English and in Korean. {0}, {1}: what is filled in.

const ENGLISH = {
  explorer: "Latent space explorer",
  hint: "Move over the map: the model draws what each place means",
  hintTouch: "Drag over the map: the model draws what each place means",
  map: "Map of the latent space. Arrow keys move, plus and minus zoom, Enter picks a point.",
  colourBy: "Colour by", view: "Axes", layer: "Layer", class: "Class", anyClass: "each point's own",
  look: "Look", lasso: "Lasso", walk: "Walk", backdrop: "Decoded backdrop",
  zoomIn: "Zoom in", zoomOut: "Zoom out", fit: "Show all",
  theme: "Dark or light", language: "한국어", here: "Decoded here", decoded: "Decoded",
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
  samples: "Samples", again: "Draw again", curvesHelp: "Over the training; validation bold, train faint.",
  samplesHelp: "The means of p(x|z), z drawn from the prior of each run.",
};

const KOREAN = {
  explorer: "잠재 공간 탐색기",
  hint: "지도 위에서 포인터를 움직이면 모델이 그 위치를 디코딩해 보여 줍니다",
  hintTouch: "지도를 손가락으로 끌면 모델이 그 위치를 디코딩해 보여 줍니다",
  map: "잠재 공간의 지도. 화살표 키로 이동하고, 더하기와 빼기로 확대·축소하며, 엔터로 점을 고릅니다.",
  colourBy: "색 기준", view: "축", layer: "층", class: "클래스", anyClass: "점마다 자신의 클래스",
  look: "보기", lasso: "올가미", walk: "경로", backdrop: "디코딩 배경",
  zoomIn: "확대", zoomOut: "축소", fit: "모두 보기",
  theme: "밝게 또는 어둡게", language: "English", here: "이 위치의 디코딩", decoded: "디코딩",
  code: "잠재 코드 z", sliders: "슬라이더", point: "점", draw: "그리기", read: "새 행", selection: "선택", numbers: "수치",
  training: "학습", compare: "비교",
  reset: "초기화", sample: "무작위 표본", temperature: "온도", allLatents: "잠재 변수 {0}개 모두 보기",
  klOf: "{0}: KL {1} nats. 모델이 이 잠재 변수를 쓰는 정도입니다",
  slidersHelp: "슬라이더 하나가 잠재 변수 하나이며, 많이 쓰이는 것부터 나열합니다. 뒤의 곡선은 사전 분포의 밀도입니다.",
  pointHelp: "점을 가리키면 해당 데이터를 보여 주고, 누르면 고정합니다.",
  original: "원본", reconstruction: "재구성", surprise: "의외성", nearest: "잠재 코드가 가까운 데이터",
  label: "레이블", cluster: "군집", part: "데이터 분할", row: "행", elbo: "증거 하한(ELBO)", recon: "재구성 항", kl: "KL 발산", nats: "{0} nats",
  drawHelp: "여기에 그리거나 그림 파일을 놓으면 모델이 인코딩하여 지도에 표시합니다.",
  readHelp: "아는 값만 입력하면 나머지는 모델이 채웁니다.",
  clear: "지우기", drop: "그림 파일을 여기에 놓거나 선택하세요", dropRow: ".csv 파일의 행을 여기에 놓거나 파일을 선택하세요", choose: "파일 선택",
  odder: "학습에 쓰지 않은 데이터의 {0} %보다 이례적입니다", logpx: "log p(x)", ellipse: "타원 안에 q(z|x)의 90 %가 들어 있습니다.",
  walkHelp: "지도에서 두 곳 이상을 누르면 그 사이를 보간한 경로가 재생됩니다.",
  linear: "직선", spherical: "구면", play: "재생", stop: "중지", savePng: "PNG 저장", saveGif: "GIF 저장", forget: "다시 시작",
  lassoHelp: "올가미를 선택한 뒤 점들을 둘러싸면 공통점을 보여 줍니다.",
  chosen: "점 {0}개 선택됨", meanDecode: "평균 잠재 코드의 디코딩", exportCsv: "CSV 저장",
  differ: "나머지와 다른 특징", here_: "선택", rest: "나머지", keepA: "A로 보관", keepB: "B로 보관",
  arithmetic: "벡터 연산", arithmeticHelp: "두 선택을 A와 B로 보관하면 평균 코드의 차이를 현재 위치에 더할 수 있습니다.",
  addBA: "현재 위치 + (B − A)", kept: "A: 점 {0}개 · B: 점 {1}개",
  column: "열", value: "값", missing: "결측", interval: "90 % 구간", filled: "모델이 채운 값", share: "{0} %",
  loading: "점 {1}개 중 {0}개 인코딩 중…", colouring: "점 {1}개 중 {0}개 색칠 중…", unknownColour: "알 수 없음",
  gone: "서버가 응답하지 않습니다. `aevb explore`가 실행 중인지 확인하세요.",
  token: "`aevb explore`가 출력한 링크로 열어야 합니다. 링크에 키가 들어 있습니다.",
  evaluation: "평가", noNumbers: "아직 평가하지 않았습니다. aevb evaluate를 실행하세요.", run: "실행", recipe: "레시피",
  stopTraining: "중지하고 저장", stopping: "중지하는 중…", ended: "학습이 끝났습니다.", waiting: "첫 수치를 기다리는 중…",
  curveElbo: "증거 하한(ELBO)", curveRecon: "재구성 항", curveKl: "KL 발산", samplesSeen: "학습에 쓴 표본 수",
  saved: "저장됨", copied: "복사됨", pointerOver: "포인터 아래", other: "다른 실행",
  score: "점수", place: "지도에 표시", fill: "채우기",
  samples: "표본", again: "다시 추출", curvesHelp: "학습 과정입니다. 진한 선은 검증, 옅은 선은 학습 데이터입니다.",
  samplesHelp: "각 실행의 사전 분포에서 뽑은 z에 대한 p(x|z)의 평균입니다.",
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
