// What a dashboard in JSON must be, by Grafana's own types. JSON has no enums: Plain turns them into their values.
import type { AnnotationQuery, Dashboard, DataQuery, Panel } from "@grafana/schema";
import type { Options as BarGaugeOptions } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { FieldConfig as TimelineField, Options as TimelineOptions } from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { FieldConfig as TableField, Options as TableOptions } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { FieldConfig as SeriesField, Options as SeriesOptions } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Plain<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Array<Plain<U>>
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;

// The package has no types for Prometheus' queries: these are the fields that Grafana's editor writes.
interface Query extends Pick<DataQuery, "refId" | "hide"> {
  datasource?: { type: "prometheus"; uid: string };
  expr: string;
  editorMode?: "code";
  range: boolean;
  instant?: boolean;
  format?: "time_series" | "table" | "heatmap";
  legendFormat?: string;
}
type Whole = Plain<Omit<Dashboard, "annotations">> & { annotations: { list: Array<Plain<AnnotationQuery<Query & DataQuery>>> } };

interface Source<C> { defaults: Omit<NonNullable<Panel["fieldConfig"]>["defaults"], "custom"> & { custom?: C };
  overrides: NonNullable<Panel["fieldConfig"]>["overrides"] }
type Typed<T extends string, O, C> = Plain<Omit<Panel, "type" | "options" | "fieldConfig" | "targets">> & {
  type: T; options: Plain<O>; fieldConfig: Plain<Source<C>>; targets: Array<Plain<Query>> };

type BarGauge = Typed<"bargauge", BarGaugeOptions, never>;
type Stat = Typed<"stat", StatOptions, never>;
type StateTimeline = Typed<"state-timeline", TimelineOptions, TimelineField>;
type Table = Typed<"table", TableOptions, TableField>;
type TimeSeries = Typed<"timeseries", SeriesOptions, SeriesField>;
