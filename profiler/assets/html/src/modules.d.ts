// What has no types of its own.
declare module "d3-flame-graph";
declare module "d3-selection";
declare module "*.css";
